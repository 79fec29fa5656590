import { ProviderError, type ProviderFailure } from "../provider";

/** Internal codes of Workers AI (its documentation, "Errors"): three meanings of HTTP 429 are told apart by them. */
const FAILURES: Readonly<Record<string, ProviderFailure>> = {
  3003: "bad_input", // incomplete request
  3006: "bad_input", // too large
  3007: "timeout",
  3008: "aborted",
  3021: "capacity", // per-minute rate of the account
  3023: "unauthorized", // account blocked
  3036: "quota", // daily free allocation used up
  3039: "bad_input", // fine-tune files
  3040: "capacity",
  3041: "unauthorized", // private model
  3042: "unknown_model",
  5004: "bad_input",
  5005: "bad_input", // model has no LoRA
  5006: "bad_input", // schema mismatch
  5007: "unknown_model",
  5016: "unauthorized", // licence not agreed
  5018: "unauthorized", // private model
  5019: "bad_input", // old SDK
  5021: "context_length",
  5035: "unauthorized", // needs the paid plan
};

/** An error of the binding, whose message begins with the internal code. */
export function failureOfWorkersAi(error: unknown): ProviderError {
  const message = error instanceof Error ? error.message : String(error);
  const code = /^(\d{4,5}):/.exec(message)?.[1];
  const isContext = /context (window|length)|too many tokens/i.test(message);
  // JSON mode's own failure carries no stable code.
  const isJsonMode = /JSON Mode couldn't be met/i.test(message);
  const known = code === undefined ? undefined : FAILURES[code];
  const failure = isContext ? "context_length" : isJsonMode ? "bad_input" : (known ?? "broken");
  return new ProviderError(failure, message, code === undefined ? {} : { providerCode: code });
}
