import type { AdmissionRequest, RateRule } from "../../../src/core/admission-book";

export interface Facts {
  readonly note: string;
}

export const START_MS = 1_790_000_000_000;

export const perMinute = (requests: number): RateRule => ({
  ...{ key: "rpm", name: "requests_per_minute", unit: "requests", limit: requests },
});
export const tokensPerMinute = (tokens: number): RateRule => ({
  ...{ key: "tpm", name: "tokens_per_minute", unit: "tokens", limit: tokens },
});

/** What a call really took. */
export const used = (tokens: number, microdollars = 0) => ({ tokens, microdollars });

/** A request that everything has room for; what a test is about stands in `changed`. */
export function request(requestId: string, changed: Partial<AdmissionRequest<Facts>> = {}): AdmissionRequest<Facts> {
  return {
    ...{ facts: { note: requestId }, requestId, class: "default", rates: [] },
    ...{ promptTokens: 10, outputTokens: 100, choices: 1, outputLowerable: false },
    ...{ inFlightLimit: 10, queueLength: 1_000, giveUpAtMs: Number.MAX_SAFE_INTEGER, holdMs: 600_000 },
    ...changed,
  };
}
