import { reportProgress } from "./dispatch";
import type { CallUsage, ModelCall, Output } from "./model-call";
import { choicesOf, type ModelRequest } from "./model-request";

/** English text has about four bytes a token; used only where a provider reports nothing. */
const BYTES_PER_TOKEN = 4;

/**
 * Counts at the tap, between the model and the caller, and cuts a model that ignores its cap. The provider's own
 * usage counts where it reports any; otherwise each text delta is one token, and the prompt is estimated below its
 * bound, so that a guess is never billed to the tenant's disadvantage. A usage that cannot be true counts as none
 * and is flagged.
 */
export async function meter(call: ModelCall): Promise<void> {
  call.output = tap(call, call.output);
}

async function* tap(call: ModelCall, output: AsyncIterable<Output>): AsyncGenerator<Output> {
  const cap = call.reservation.outputTokens;
  const isStream = call.request.stream;
  const counted = new Map<number, number>(); // choice → tokens
  const cut = new Set<number>();
  const unread = promptAlone(call.request);
  const estimate = (): CallUsage => ({
    ...unread,
    completionTokens: [...counted.values()].reduce((sum, tokens) => sum + tokens, 0),
  });
  for await (const delta of output) {
    call.firstTokenMs ??= Date.now() - call.startedAtMs;
    if (delta.type === "usage_rejected") {
      call.usageRejected = true;
      const { provider, providerModel } = call.model;
      const about = { requestId: call.id, provider, providerModel, reported: delta.reported };
      console.error(JSON.stringify({ event: "usage_rejected", ...about }));
      continue;
    }
    if (delta.type === "usage") {
      const { promptTokens, cachedTokens, completionTokens } = delta;
      call.usage = { promptTokens, cachedTokens, completionTokens, estimated: false };
    } else if (delta.type === "text" || delta.type === "tool_call") {
      if (cut.has(delta.choice)) continue;
      // A streamed delta is one token at least; a whole reply comes as one delta, so its length has to tell.
      const more = isStream
        ? 1
        : Math.ceil(bytesOf(delta.type === "text" ? delta.text : delta.arguments) / BYTES_PER_TOKEN);
      const tokens = (counted.get(delta.choice) ?? 0) + more;
      if (isStream && tokens > cap) {
        cut.add(delta.choice);
        yield { type: "finish", choice: delta.choice, reason: "length" };
        if (cut.size === choicesOf(call.request)) return call.stop("cap");
        continue;
      }
      counted.set(delta.choice, Math.min(tokens, cap));
      call.usage = estimate();
      reportProgress(call, call.usage.completionTokens);
    } else if (delta.type === "vectors" || delta.type === "verdicts" || delta.type === "label") {
      call.usage = estimate();
    } else if (cut.has(delta.choice)) continue;
    yield delta;
  }
}

/** Of a model that was asked and had not answered when it was told to stop: it has read the prompt. */
export const promptAlone = (request: ModelRequest): CallUsage => ({
  promptTokens: Math.ceil(promptBytes(request) / BYTES_PER_TOKEN),
  cachedTokens: 0,
  completionTokens: 0,
  estimated: true,
});

const encoder = new TextEncoder();
const bytesOf = (text: string) => encoder.encode(text).byteLength;

function promptBytes(request: ModelRequest): number {
  const texts = request.kind !== "completions" ? request.inputs : request.messages.map((message) => message.content);
  return texts.reduce<number>((sum, text) => sum + bytesOf(typeof text === "string" ? text : JSON.stringify(text)), 0);
}
