import { ApiError, ERRORS } from "../errors";

/** The contract's error body; also what a stream carries when it breaks. */
export function errorBody(error: ApiError) {
  const { type } = ERRORS[error.code];
  const { param = null, more = {} } = error.options;
  return { error: { message: error.message, type, param, code: error.code, ...more } };
}

/** Anything thrown, as an error of ours; what is not ours is told apart only in the log. */
export function toApiError(thrown: unknown, requestId: string): ApiError {
  if (thrown instanceof ApiError) return thrown;
  console.error(JSON.stringify({ event: "internal_error", requestId, error: describe(thrown) }));
  return new ApiError("internal_error", `Something failed on our side. Quote request ${requestId}.`);
}

/** The one place where something thrown becomes bytes. */
export function toResponse(thrown: unknown, requestId: string): Response {
  const error = toApiError(thrown, requestId);
  return Response.json(errorBody(error), { status: ERRORS[error.code].status, headers: error.options.headers ?? {} });
}

const describe = (thrown: unknown) =>
  thrown instanceof Error
    ? { name: thrown.name, message: thrown.message, stack: thrown.stack }
    : { name: typeof thrown };
