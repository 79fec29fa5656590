import { RunningCount } from "../core/tokens/running-count";
import type { ProviderUsage } from "../inference/provider";
import { reportProgress } from "./dispatch";
import type { CallUsage, ModelCall, Output } from "./model-call";
import { choicesOf } from "./model-request";
import { promptGuess } from "./prompt-bound";

/**
 * A model that ignores its cap is cut when its text is clearly beyond it: what is written in one way can be read as
 * a few more tokens than it was made of, and by a tokenizer that is not ours as a good many.
 */
const CUT_FACTOR = 1.25;
const CUT_SLACK_TOKENS = 4;
/** A provider's count is believed down to this part of ours, since its tokenizer may be another one. */
const BELIEVED_SHARE = 0.5;
/** Of long texts a count is believed without counting when it is one of so many bytes: ordinary text has four. */
const BYTES_PER_BELIEVED_TOKEN = 6;
const LONG_BYTES = 256;
/** English text has about four bytes a token; good enough to tell a dispatcher how far a call is. */
const BYTES_PER_TOKEN = 4;
/** Between two looks at whether the cap is passed. */
const LOOK_BYTES = 16;

/**
 * Counts at the meter, between the model and the caller, and cuts a model that ignores its cap. The provider's own
 * usage counts where it reports any that can be true, wherever in the reply it comes; otherwise the texts are counted
 * by the model's tokenizer, and the prompt as well, so that a guess is never billed to the tenant's disadvantage.
 */
export async function meter(call: ModelCall): Promise<void> {
  call.output = metered(call, call.output);
}

async function* metered(call: ModelCall, output: AsyncIterable<Output>): AsyncGenerator<Output> {
  const seen = new Seen(call);
  call.usage = () => seen.usage;
  try {
    yield* passed(call, output, seen);
    seen.judgeReport();
  } finally {
    call.usage = seen.usage; // counted once, for whoever asks
  }
}

async function* passed(call: ModelCall, output: AsyncIterable<Output>, seen: Seen): AsyncGenerator<Output> {
  const cut = new Set<number>();
  for await (const delta of output) {
    call.firstTokenMs ??= Date.now() - call.startedAtMs;
    seen.hasBegun = true;
    if (delta.type === "usage_rejected") {
      reject(call, delta.reported);
      continue;
    }
    if (delta.type === "usage") seen.reported = delta;
    else if ("choice" in delta) {
      if (cut.has(delta.choice)) continue;
      seen.add(delta);
      if (call.request.stream && seen.isBeyondCap(delta)) {
        cut.add(delta.choice);
        yield { type: "finish", choice: delta.choice, reason: "length" };
        if (cut.size === choicesOf(call.request)) return call.stop("cap");
        continue;
      }
      reportProgress(call, seen.roughTokens);
    }
    yield delta;
  }
}

/** Of a model that was asked and had not answered when it was told to stop: it has read the prompt. */
export const promptAlone = ({ request, model, ports }: ModelCall): CallUsage => ({
  promptTokens: promptGuess(request, model, ports.tokenizers),
  cachedTokens: 0,
  completionTokens: 0,
  estimated: true,
});

const NOTHING: CallUsage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, estimated: true };

/** What has come of a call, and what its provider says of it. */
class Seen {
  reported: ProviderUsage | undefined;
  hasBegun = false;
  readonly #choices = new Map<number, { readonly count: RunningCount; looksAt: number }>();

  constructor(readonly call: ModelCall) {}

  add(delta: Extract<Output, { choice: number }>): void {
    if (delta.type === "finish") return;
    const { model, ports } = this.call;
    const guess = (text: string) => ports.tokenizers.guess(text, model.tokenizer);
    const choice = this.#choices.get(delta.choice) ?? { count: new RunningCount(guess), looksAt: 0 };
    this.#choices.set(delta.choice, choice);
    choice.count.add(delta.type === "tool_call" ? `${delta.name ?? ""}${delta.arguments}` : delta.text);
  }

  isBeyondCap({ choice: index }: { readonly choice: number }): boolean {
    const choice = this.#choices.get(index);
    const most = this.call.reservation.outputTokens * CUT_FACTOR + CUT_SLACK_TOKENS;
    if (!choice || choice.count.most <= most || choice.count.most < choice.looksAt) return false;
    const { tokens } = choice.count;
    choice.looksAt = choice.count.most + LOOK_BYTES; // lower now that more of it is counted
    return tokens > most;
  }

  get roughTokens(): number {
    return Math.ceil(this.#bytes / BYTES_PER_TOKEN);
  }

  get #bytes(): number {
    let bytes = 0;
    for (const { count } of this.#choices.values()) bytes += count.bytes;
    return bytes;
  }

  get usage(): CallUsage {
    const { reported } = this;
    if (!this.hasBegun) return NOTHING;
    if (!reported || !this.#isBelievable(reported)) {
      return { ...promptAlone(this.call), completionTokens: this.#completionTokens };
    }
    const { promptTokens, cachedTokens, completionTokens, reasoningTokens } = reported;
    const counted = { promptTokens, cachedTokens, completionTokens, estimated: false };
    return reasoningTokens === undefined ? counted : { ...counted, reasoningTokens };
  }

  /** At the end: a count that leaves out what we have seen is no count. */
  judgeReport(): void {
    const { reported } = this;
    if (reported && !this.#isBelievable(reported)) reject(this.call, JSON.stringify(reported));
  }

  get #completionTokens(): number {
    const cap = this.call.reservation.outputTokens;
    let tokens = 0;
    for (const { count } of this.#choices.values()) tokens += Math.min(count.tokens, cap);
    return tokens;
  }

  #isBelievable({ promptTokens, completionTokens }: ProviderUsage): boolean {
    if (promptTokens === 0) return false;
    const bytes = this.#bytes;
    if (bytes > LONG_BYTES && completionTokens * BYTES_PER_BELIEVED_TOKEN >= bytes) return true;
    return completionTokens >= Math.floor(this.#completionTokens * BELIEVED_SHARE);
  }
}

function reject(call: ModelCall, reported: string): void {
  call.usageRejected = true;
  const { provider, providerModel } = call.model;
  const about = { requestId: call.id, provider, providerModel, reported };
  console.error(JSON.stringify({ event: "usage_rejected", ...about }));
}
