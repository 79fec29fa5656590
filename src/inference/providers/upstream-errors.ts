import { ProviderError, type ProviderFailure } from "../provider";

/** A `retry-after` above this is no longer advice for a client that waits. */
const MAX_RETRY_AFTER_MS = 3_600_000;

interface Complaint {
  /** Of the error object; servers use one or the other. */
  readonly code: string | undefined;
  readonly text: string;
}

/** What an HTTP error of an upstream means. @param body its beginning is enough */
export function upstreamFailure(status: number, headers: Headers, body: string): ProviderError {
  const complaint = complaintOf(errorIn(body) ?? body);
  const failure = byComplaint(status, complaint) ?? byStatus(status);
  return failed(failure, `HTTP ${status}`, complaint, retryAfterMs(headers));
}

/** What an error event, or an error in place of a chunk, means. */
export function upstreamStreamFailure(error: unknown): ProviderError {
  const complaint = complaintOf(error);
  const status = Number(complaint.code); // routers put the status of their own upstream there
  const failure = byComplaint(status, complaint) ?? (status >= 400 ? byStatus(status) : "broken");
  return failed(failure, "an error in the stream", complaint, undefined);
}

function failed(failure: ProviderFailure, how: string, { code }: Complaint, retryMs: number | undefined) {
  return new ProviderError(failure, `the upstream answered with ${how}${code ? ` (${code})` : ""}`, {
    ...(code === undefined ? {} : { providerCode: code }),
    ...(retryMs === undefined ? {} : { retryAfterMs: retryMs }),
  });
}

function byComplaint(status: number, { code, text }: Complaint): ProviderFailure | undefined {
  if (code === "context_length_exceeded") return "context_length";
  // llama.cpp, vLLM and others know no code for it, and some say 500.
  if (status !== 429 && /context (length|window|size)|exceed_context_size/i.test(text)) return "context_length";
  // Our account's limits, not the server's load.
  if (/quota|billing|rate_limit/i.test(code ?? "")) return "quota";
  return undefined;
}

function byStatus(status: number): ProviderFailure {
  switch (status) {
    case 400:
    case 413:
    case 415:
    case 422:
      return "bad_input";
    case 401:
    case 403:
      return "unauthorized";
    case 404:
      return "unknown_model";
    case 408:
    case 429:
    case 503:
      return "capacity";
    default:
      return "broken"; // redirects too: following one would carry prompts and keys to somebody else
  }
}

function errorIn(body: string): unknown {
  try {
    const parsed: unknown = JSON.parse(body);
    return typeof parsed === "object" && parsed !== null && "error" in parsed ? parsed.error : parsed;
  } catch {
    return undefined;
  }
}

/** The text is for recognising the failure only: servers quote prompts in it, so it goes into no message. */
function complaintOf(error: unknown): Complaint {
  const fields = (typeof error === "object" && error !== null ? error : {}) as { code?: unknown; type?: unknown };
  const code = [fields.code, fields.type]
    .filter((field) => typeof field === "string" || typeof field === "number")
    .map(String)
    .find((field) => /^[A-Za-z0-9_.-]{1,64}$/.test(field));
  return { code, text: typeof error === "string" ? error : JSON.stringify(error ?? "") };
}

/** RFC 9110, section 10.2.3: seconds or a date. */
function retryAfterMs(headers: Headers): number | undefined {
  const value = headers.get("retry-after");
  if (value === null) return undefined;
  const isDate = /^[A-Z][a-z]+,? /.test(value); // Date.parse alone takes almost anything for a date
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : isDate ? Date.parse(value) - Date.now() : Number.NaN;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS) : undefined;
}
