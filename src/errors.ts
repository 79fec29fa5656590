/**
 * Every error a caller can meet. The code is API: clients switch on it, so status and type hang on the code and
 * nowhere else. Values of `type` are those of OpenAI's error guide.
 */
export const ERRORS = {
  invalid_api_key: { status: 401, type: "invalid_request_error" },
  invalid_end_user_token: { status: 401, type: "invalid_request_error" },
  ambiguous_credentials: { status: 400, type: "invalid_request_error" },
  insufficient_scope: { status: 403, type: "invalid_request_error" },
  origin_not_allowed: { status: 403, type: "invalid_request_error" },
  project_archived: { status: 403, type: "invalid_request_error" },
  project_suspended: { status: 403, type: "invalid_request_error" },
  invalid_json: { status: 400, type: "invalid_request_error" },
  invalid_value: { status: 400, type: "invalid_request_error" },
  missing_required_parameter: { status: 400, type: "invalid_request_error" },
  unknown_parameter: { status: 400, type: "invalid_request_error" },
  unsupported_parameter: { status: 400, type: "invalid_request_error" },
  unsupported_media_type: { status: 415, type: "invalid_request_error" },
  context_length_exceeded: { status: 400, type: "invalid_request_error" },
  unsupported_tool: { status: 400, type: "invalid_request_error" },
  unsupported_modality: { status: 400, type: "invalid_request_error" },
  previous_response_not_found: { status: 400, type: "invalid_request_error" },
  model_not_found: { status: 404, type: "invalid_request_error" },
  not_found: { status: 404, type: "invalid_request_error" },
  method_not_allowed: { status: 405, type: "invalid_request_error" },
  conflict: { status: 409, type: "invalid_request_error" },
  idempotency_in_progress: { status: 409, type: "invalid_request_error" },
  idempotency_not_kept: { status: 409, type: "invalid_request_error" },
  idempotency_key_reused: { status: 422, type: "invalid_request_error" },
  request_timeout: { status: 408, type: "invalid_request_error" },
  request_too_large: { status: 413, type: "invalid_request_error" },
  client_closed_request: { status: 499, type: "invalid_request_error" },
  rate_limit_exceeded: { status: 429, type: "rate_limit_error" },
  insufficient_quota: { status: 429, type: "insufficient_quota" },
  storage_quota_exceeded: { status: 403, type: "invalid_request_error" },
  data_not_kept: { status: 403, type: "invalid_request_error" },
  invalid_file: { status: 400, type: "invalid_request_error" },
  invalid_form: { status: 400, type: "invalid_request_error" },
  range_not_satisfiable: { status: 416, type: "invalid_request_error" },
  price_unknown: { status: 403, type: "invalid_request_error" },
  service_tier_not_in_plan: { status: 403, type: "invalid_request_error" },
  queue_full: { status: 429, type: "rate_limit_error" },
  model_refused_input: { status: 400, type: "invalid_request_error" },
  internal_error: { status: 500, type: "server_error" },
  model_error: { status: 502, type: "server_error" },
  model_overloaded: { status: 503, type: "server_error" },
  admission_unavailable: { status: 503, type: "server_error" },
  settlement_unavailable: { status: 503, type: "server_error" },
  storage_unavailable: { status: 503, type: "server_error" },
  model_timeout: { status: 504, type: "server_error" },
} as const satisfies Record<string, { status: number; type: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** What a service throws when the caller's request cannot be answered; `src/http/errors.ts` turns it into bytes. */
export class ApiError extends Error {
  /**
   * @param message what happened, with which value, and what to do; shown to the caller as it is
   * @param options.param the request field at fault, in the contract's spelling (`messages[0].content`)
   * @param options.headers extra reply headers, `retry-after` for instance
   * @param options.more further members of the error body, in the wire's spelling
   */
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly options: {
      readonly param?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly more?: Readonly<Record<string, unknown>>;
    } = {},
  ) {
    super(message);
    this.name = "ApiError";
  }
}
