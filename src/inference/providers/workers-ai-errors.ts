import { ProviderError, type ProviderFailure } from "../provider";

/**
 * Internal codes of Workers AI (its documentation, "Errors"; those marked * were only ever seen in replies). HTTP 429
 * alone has three meanings: no capacity, the account's rate, its daily allocation.
 */
const FAILURES: Readonly<Record<string, ProviderFailure>> = {
  3003: "broken", // incomplete request: our doing, the caller can mend nothing
  3006: "bad_input", // too large
  3007: "timeout",
  3008: "timeout", // aborted, but not by us
  3021: "quota", // * the account's requests a minute
  3023: "unauthorized", // account blocked
  3036: "quota", // daily allocation used up
  3039: "unknown_model", // fine-tune without its files
  3040: "capacity",
  3041: "unauthorized", // private model
  3042: "unknown_model",
  3046: "timeout", // *
  4006: "quota", // * daily allocation used up
  5004: "bad_input",
  5005: "unknown_model", // the base takes no LoRA
  5006: "bad_input", // * schema mismatch
  5007: "unknown_model",
  5016: "unauthorized", // licence not agreed
  5018: "unauthorized", // private model
  5019: "broken", // deprecated SDK
  5021: "context_length", // *
  5035: "unauthorized", // needs a paid plan
  10000: "unauthorized", // *
};

/** Failures that bring no code, or one with several meanings. */
const PHRASES: readonly [RegExp, ProviderFailure][] = [
  [/context (window|length)/i, "context_length"],
  [/JSON Mode couldn't be met/i, "bad_input"],
  [/daily free allocation/i, "quota"],
  [/capacity temporarily exceeded/i, "capacity"],
];

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;

/**
 * What an error of the binding, or one inside a stream, means. The code leads its message; the text behind it may
 * quote the prompt, so it is read here and goes no further.
 */
export function workersAiFailure(error: unknown): ProviderError {
  const { text, code } = codeOf(error);
  const phrase = PHRASES.find(([pattern]) => pattern.test(text))?.[1];
  const failure = phrase ?? FAILURES[code ?? ""] ?? "broken";
  const retryAfterMs = retryAfter(failure, code);
  const isAboutSchema = failure === "bad_input" && /\/response_format\b|JSON Mode/i.test(text);
  return new ProviderError(failure, `Workers AI failed with code ${code ?? "unknown"}`, {
    ...(code === undefined ? {} : { providerCode: code }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(isAboutSchema ? { param: "response_format", isSchema: true as const } : {}),
  });
}

function codeOf(error: unknown): { text: string; code: string | undefined } {
  const { message, code, internalCode } = (typeof error === "object" && error !== null ? error : {}) as {
    message?: unknown;
    code?: unknown;
    internalCode?: unknown;
  };
  const text = String(message ?? error);
  // "3040: …", or behind the name of an error class: "AiError: 3040: …"
  const leading = /^(?:[A-Za-z]+: )*(\d{4,5}):/.exec(text)?.[1];
  const field = [internalCode, code].map(String).find((value) => /^\d{4,5}$/.test(value));
  return { text, code: leading ?? field };
}

function retryAfter(failure: ProviderFailure, code: string | undefined): number | undefined {
  if (failure !== "quota") return undefined;
  return code === "3021" ? MINUTE_MS : DAY_MS - (Date.now() % DAY_MS); // the allocation is renewed at 00:00 UTC
}
