import fc from "fast-check";
import type { Script } from "../mock-upstream";

/** What a caller does, and what happens to it. Times are ms after the call was sent. */
export interface PlannedCall {
  readonly tenant: number;
  readonly isolate: number;
  readonly words: number;
  readonly maxTokens: number;
  readonly stream: boolean;
  readonly fate: Fate;
}
type Fate =
  | { readonly type: "whole" }
  | { readonly type: "leaves"; readonly afterMs: number }
  | { readonly type: "leaves_mid_stream"; readonly afterChunks: number }
  | { readonly type: "provider_fails"; readonly script: Script };

export const plannedCalls = (tenants: number, isolates: number, howMany: number, seed: number): PlannedCall[] =>
  fc.sample(
    fc.record({
      tenant: fc.nat(tenants - 1),
      isolate: fc.nat(isolates - 1),
      words: fc.integer({ min: 1, max: 60 }),
      maxTokens: fc.integer({ min: 1, max: 40 }),
      stream: fc.boolean(),
      fate: fc.oneof(
        { weight: 80, arbitrary: fc.constant<Fate>({ type: "whole" }) },
        { weight: 8, arbitrary: fc.record({ type: fc.constant("leaves" as const), afterMs: fc.nat(15) }) },
        {
          weight: 7,
          arbitrary: fc.record({
            type: fc.constant("leaves_mid_stream" as const),
            afterChunks: fc.integer({ min: 1, max: 4 }),
          }),
        },
        {
          weight: 5,
          arbitrary: fc.record({
            type: fc.constant("provider_fails" as const),
            script: fc.constantFrom<Script>({ status: 500 }, { cutAfter: 1 }, { rawBody: "no JSON" }),
          }),
        },
      ),
    }),
    { numRuns: howMany, seed },
  );

/** How a call ended for its caller; `status` is null where the connection ended first. */
export interface Answer {
  readonly call: PlannedCall;
  readonly requestId: string | null;
  readonly status: number | null;
  /** Its whole reply arrived. */
  readonly isWhole: boolean;
  /** What a whole reply says that it took, where it says so. */
  readonly usage?: TokenUsage;
  readonly error?: { readonly code: string; readonly message: string; readonly limits?: readonly RuleState[] };
}
export interface TokenUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
}
interface RuleState {
  readonly rule: string;
  readonly limit: number;
  readonly settled: number;
  readonly held: number;
}

export async function perform(call: PlannedCall, url: string, key: string): Promise<Answer> {
  const { fate, stream, tenant } = call;
  const abort = new AbortController();
  if (fate.type === "leaves") setTimeout(() => abort.abort(), fate.afterMs);
  let [status, requestId, text]: [number | null, string | null, string] = [null, null, ""];
  try {
    const reply = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}` },
      body: JSON.stringify({
        model: "mock",
        messages: [{ role: "user", content: `tenant-${tenant}${" word".repeat(call.words)}` }],
        max_completion_tokens: call.maxTokens,
        stream,
      }),
      signal: abort.signal,
    });
    [status, requestId] = [reply.status, reply.headers.get("x-request-id")];
    let chunks = 0;
    for await (const chunk of (reply.body ?? new ReadableStream()).pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (fate.type === "leaves_mid_stream" && ++chunks >= fate.afterChunks) abort.abort();
    }
  } catch {
    return { call, requestId, status, isWhole: false };
  }
  const isWhole = status === 200 && (!stream || text.includes("data: [DONE]"));
  const said = status === 429 || (isWhole && !stream) ? (JSON.parse(text) as Pick<Answer, "error" | "usage">) : {};
  return { call, requestId, status, isWhole, ...said };
}

/**
 * Of a refused call: what its own rule said was settled and held, and what the call asked for on top.
 * @throws when the refusal does not explain itself
 */
export function explained({ error }: Answer): { rule: string; wanted: number; limit: number } {
  const message = error?.message ?? "";
  const rule = /(?:reached for|The budget) ([\w/:.-]+)/.exec(message)?.[1] ?? "";
  const state = error?.limits?.find((each) => each.rule === rule);
  const [, tokens, dollars] = /requested (\d+)|this request at most \$(\d+\.\d+)/.exec(message) ?? [];
  const asked = tokens === undefined ? Math.round(Number(dollars) * 1e6) : Number(tokens);
  if (!state || !(asked > 0)) throw new Error(`a refusal that does not explain itself: ${JSON.stringify(error)}`);
  return { rule, wanted: state.settled + state.held + asked, limit: state.limit };
}
