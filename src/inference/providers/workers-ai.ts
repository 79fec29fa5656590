import { fromLlamaGuard, type Verdict } from "../../guard/moderation";
import {
  type ChatCall,
  type ChatDelta,
  type ClassificationCall,
  type EmbeddingCall,
  type EmbeddingResult,
  type ModerationCall,
  type ModerationResult,
  type Provider,
  ProviderError,
} from "../provider";
import { ReplyReader, type ReplyRules, streamedReply } from "./reply-reader";
import { Running } from "./running";
import { sideBySide } from "./side-by-side";
import { TokenCount } from "./token-count";
import { checkedVectors } from "./vectors";
import { workersAiFailure } from "./workers-ai-errors";
import { workersAiInputs } from "./workers-ai-inputs";

/** The Workers AI binding, or a service binding that answers like it. */
export interface AiBinding {
  run(model: string, inputs: object, options?: object): Promise<unknown>;
}

/** Texts that Workers AI embeds in one run. */
const MAX_TEXTS = 100;

const RULES: ReplyRules = { usagePerChunk: true, zeroPromptIsUncounted: true, failureOf: workersAiFailure };

/**
 * Workers AI, in both of its reply shapes: classic `{response, tool_calls?, usage?}` and OpenAI's `choices`.
 * It has no `n`, so several choices are several runs side by side. An AbortSignal cannot cross RPC, so none is passed:
 * a stream is stopped by cancelling it, a whole reply by no longer waiting for it.
 */
export function workersAi(ai: AiBinding): Provider {
  return {
    async chat(call, signal) {
      const running = new Running(signal, null);
      try {
        const choices = Array.from({ length: call.choices }, (_, choice) => choice);
        const runs = await Promise.all(choices.map((choice) => chatRun(ai, call, choice, running)));
        return running.output(runs.length === 1 && runs[0] ? runs[0] : sideBySide(runs), workersAiFailure);
      } catch (error) {
        throw running.failure(error, workersAiFailure);
      }
    },
    async classify(call, signal) {
      const running = new Running(signal, null);
      try {
        return await classified(ai, call, running);
      } catch (error) {
        throw running.failure(error, workersAiFailure);
      } finally {
        running.stop();
      }
    },
    async moderate(call, signal) {
      const running = new Running(signal, null);
      try {
        return await moderated(ai, call, running);
      } catch (error) {
        throw running.failure(error, workersAiFailure);
      } finally {
        running.stop();
      }
    },
    async embed(call, signal) {
      const running = new Running(signal, null);
      try {
        return await embedded(ai, call, running);
      } catch (error) {
        throw running.failure(error, workersAiFailure);
      } finally {
        running.stop();
      }
    },
  };
}

/** One choice; its deltas say choice 0. */
async function chatRun(
  ai: AiBinding,
  call: ChatCall,
  choice: number,
  running: Running,
): Promise<AsyncGenerator<ChatDelta>> {
  // Workers AI, "Prompt caching": the header leads calls that begin alike to where the beginning is known.
  const options = call.affinity === undefined ? [] : [{ extraHeaders: { "x-session-affinity": call.affinity } }];
  const answered = ai.run(call.model.providerModel, workersAiInputs(call, choice), ...options);
  void discardLate(answered, running.signal);
  const reply = await running.wait(answered);
  const reader = new ReplyReader({ choices: 1, maxOutputTokens: call.maxOutputTokens }, RULES);
  return isStream(reply) ? streamedReply(running.open(reply), reader) : wholeReply(reply, reader);
}

async function* wholeReply(reply: unknown, reader: ReplyReader): AsyncGenerator<ChatDelta> {
  const answer = typeof reply === "object" && reply !== null ? reply : {};
  if (!["response", "tool_calls", "choices", "error", "errors"].some((field) => field in answer)) {
    throw new ProviderError("broken", "Workers AI answered in a shape that is no chat reply");
  }
  yield* reader.read(answer);
  yield* reader.end();
}

/** `{text, labels, instruction?}` → `[{label, score}]`, in any order. */
async function classified(
  ai: AiBinding,
  { model, text, labels, instruction }: ClassificationCall,
  running: Running,
): Promise<readonly number[]> {
  if (model.classifier === null) throw new TypeError(`model ${model.name} has no classifier`);
  const inputs = { text, labels, ...(instruction === undefined ? {} : { instruction }) };
  const reply = await running.wait(ai.run(model.classifier, inputs));
  const scores = new Map(
    (Array.isArray(reply) ? reply : []).map((judged: { label?: unknown; score?: unknown }) => [
      judged?.label,
      judged?.score,
    ]),
  );
  return labels.map((label) => {
    const score = scores.get(label);
    if (typeof score !== "number" || !Number.isFinite(score))
      throw new ProviderError("broken", "Workers AI answered without a score for each label");
    return score;
  });
}

/**
 * Llama Guard 3, one run for each text: `response` is `{safe, categories}` in JSON mode, or its two lines of text.
 * (Workers AI, "llama-guard-3-8b")
 */
async function moderated(
  ai: AiBinding,
  { model, inputs }: ModerationCall,
  running: Running,
): Promise<ModerationResult> {
  const verdicts: Verdict[] = [];
  let promptTokens: number | null = 0;
  for (const content of inputs) {
    const asked = { messages: [{ role: "user", content }], response_format: { type: "json_object" }, temperature: 0 };
    const reply = (await running.wait(ai.run(model.providerModel, asked))) as GuardReply | null;
    verdicts.push(fromLlamaGuard(hazardsOf(reply?.response)));
    const tokens = TokenCount.safeParse(reply?.usage?.prompt_tokens);
    promptTokens = promptTokens === null || !tokens.success ? null : promptTokens + tokens.data;
  }
  return { verdicts, promptTokens };
}
interface GuardReply {
  readonly response?: unknown;
  readonly usage?: { readonly prompt_tokens?: unknown };
}

function hazardsOf(response: unknown): string[] {
  if (typeof response === "string") {
    const [verdict, categories = ""] = response.trim().split("\n");
    if (verdict === "safe") return [];
    if (verdict === "unsafe") return categories.split(",").map((category) => category.trim());
  } else if (typeof response === "object" && response !== null && "safe" in response) {
    const { safe, categories } = response as { safe: unknown; categories?: unknown };
    if (safe === true) return [];
    if (safe === false) return Array.isArray(categories) ? categories.map(String) : [];
  }
  throw new ProviderError("broken", "the safety model answered in a shape that is no verdict");
}

async function embedded(ai: AiBinding, call: EmbeddingCall, running: Running): Promise<EmbeddingResult> {
  const { model, inputs } = call;
  const vectors: (readonly number[])[] = [];
  let promptTokens: number | null = 0;
  for (let at = 0; at < inputs.length; at += MAX_TEXTS) {
    const text = inputs.slice(at, at + MAX_TEXTS);
    const reply = await running.wait(ai.run(model.providerModel, { text }));
    const { data, usage } = (reply ?? {}) as { data?: unknown; usage?: unknown };
    const batch = checkedVectors(Array.isArray(data) ? data : [], usage, { model, inputs: text });
    vectors.push(...batch.vectors);
    promptTokens = promptTokens === null || batch.promptTokens === null ? null : promptTokens + batch.promptTokens;
  }
  return { vectors, promptTokens };
}

const isStream = (reply: unknown): reply is ReadableStream<Uint8Array> => reply instanceof ReadableStream;

/** An answer that nobody waits for any more still holds a model. */
async function discardLate(answered: Promise<unknown>, signal: AbortSignal): Promise<void> {
  try {
    const reply = await answered;
    if (signal.aborted && isStream(reply) && !reply.locked) await reply.cancel();
  } catch {
    // a run that failed holds nothing
  }
}
