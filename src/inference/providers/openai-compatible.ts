import { z } from "zod";
import { FIRST_ISSUE } from "../../first-issue";
import type { Dialect } from "../dialect";
import {
  type ChatCall,
  type ChatDelta,
  type EmbeddingCall,
  type EmbeddingResult,
  type Provider,
  ProviderError,
  type ProviderUsage,
  usageOfOnePrompt,
} from "../provider";
import { parsedJson, ReplyReader, type ReplyRules, streamedDeltas } from "./reply-reader";
import { Running } from "./running";
import { upstreamStreamFailure } from "./upstream-errors";
import { type Answer, ask, askForVectors, bodyOf, textOf, type UpstreamOptions } from "./upstream-requests";
import { checkedVectors } from "./vectors";

export type { UpstreamOptions } from "./upstream-requests";

/** A whole reply above this is refused: it would have to fit into an isolate's memory. */
const MAX_REPLY_BYTES = 32 * 1024 * 1024;

const RULES: ReplyRules = { usagePerChunk: false, zeroPromptIsUncounted: false, failureOf: upstreamStreamFailure };

/** Any OpenAI-compatible server: Ollama, vLLM, llama.cpp, LoRAX, OpenAI itself. */
export function openaiCompatible(options: UpstreamOptions): Provider {
  return {
    async chat(call, signal) {
      const running = new Running(signal, options.timeoutMs);
      try {
        const begun = await ask(options, call, running);
        return running.output(answered(options, call, running, begun), brokenOff);
      } catch (error) {
        throw running.failure(error, brokenOff);
      }
    },
    async embed(call, signal) {
      const running = new Running(signal, options.timeoutMs);
      try {
        const response = await askForVectors(options, call, running);
        return vectorsIn(parsedJson(await textOf(bodyOf(response, running), MAX_REPLY_BYTES)), call);
      } catch (error) {
        throw running.failure(error, brokenOff);
      } finally {
        running.stop();
      }
    },
  };
}

/** An answer that has begun; choices that it leaves out are asked for one after the other. */
async function* answered(
  options: UpstreamOptions,
  call: ChatCall,
  running: Running,
  { body, dialect }: Answer,
): AsyncGenerator<ChatDelta> {
  const reader = readerOf(call, dialect);
  yield* deltasOf(body, reader);
  const { missing } = reader;
  if (missing.length === 0 || missing.length === call.choices) return yield* reader.end();
  const oneChoice = { ...dialect, hasOneChoice: true };
  if (!dialect.hasOneChoice) options.dialects?.remember(options.baseUrl, call.model.providerModel, oneChoice);
  yield* inTurn(options, call, running, { choices: missing, before: reader.end() });
}

/**
 * Choices by a call each, one after the other: more at once would take more of a scarce server than this call was
 * given. Ends and the sum of the usages come last; the prompt was the same, so it counts once.
 */
async function* inTurn(
  options: UpstreamOptions,
  call: ChatCall,
  running: Running,
  { choices, before }: { readonly choices: readonly number[]; readonly before: Iterable<ChatDelta> },
): AsyncGenerator<ChatDelta> {
  const ends: ChatDelta[] = [];
  const usages: ProviderUsage[] = [];
  const runs = 1 + choices.length;
  let rejected: ChatDelta | undefined;
  const passed = function* (delta: ChatDelta, choice?: number): Generator<ChatDelta> {
    if (delta.type === "usage") usages.push(delta);
    else if (delta.type === "usage_rejected") rejected = delta;
    else {
      const own = choice === undefined ? delta : { ...delta, choice };
      if (delta.type === "finish") ends.push(own);
      else yield own;
    }
  };
  for (const delta of before) yield* passed(delta);
  for (const choice of choices) {
    const seed = call.seed === undefined || choice === 0 ? {} : { seed: call.seed + choice };
    const single = { ...call, ...seed, choices: 1 };
    const { body, dialect } = await ask(options, single, running);
    const reader = readerOf(single, dialect);
    for await (const delta of deltasOf(body, reader)) yield* passed(delta, choice);
    for (const delta of reader.end()) yield* passed(delta, choice);
  }
  yield* ends.toSorted((a, b) => ("choice" in a ? a.choice : 0) - ("choice" in b ? b.choice : 0));
  if (usages.length === runs) yield { type: "usage", ...usageOfOnePrompt(usages) };
  else if (rejected) yield rejected;
}

const readerOf = (call: ChatCall, dialect: Dialect) =>
  new ReplyReader(call, {
    ...RULES,
    hasThinkTags: dialect.hasThinkTags,
    hasOneCall: call.parallelToolCalls === false && dialect.omit.includes("parallel_tool_calls"),
  });

/** Whatever was asked for, and whatever the server calls it: its first character says what it sends. */
async function* deltasOf(body: AsyncGenerator<Uint8Array>, reader: ReplyReader): AsyncGenerator<ChatDelta> {
  for (let blanks = 0; blanks < MAX_REPLY_BYTES; ) {
    const { done, value } = await body.next();
    if (done) break;
    const at = value.findIndex((byte) => !BLANKS.has(byte));
    if (at === -1) {
      blanks += value.length; // gateways keep their connection alive with blanks in front of the reply
      continue;
    }
    const bytes = followedBy(value.subarray(at), body);
    return yield* WHOLE.has(value[at] as number) ? wholeDeltas(bytes, reader) : streamedDeltas(bytes, reader);
  }
  throw new ProviderError("broken", "the upstream's reply is empty");
}
/** White space, and the three bytes of a byte order mark. */
const BLANKS: ReadonlySet<number> = new Set([0x09, 0x0a, 0x0d, 0x20, 0xef, 0xbb, 0xbf]);
/** The beginnings of JSON, and of a proxy's page. */
const WHOLE: ReadonlySet<number> = new Set([...'{["<'].map((character) => character.charCodeAt(0)));

async function* followedBy(first: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  yield* rest;
}

async function* wholeDeltas(body: AsyncIterable<Uint8Array>, reader: ReplyReader): AsyncGenerator<ChatDelta> {
  yield* reader.read(parsedJson(await textOf(body, MAX_REPLY_BYTES)));
  if (!reader.isComplete) throw new ProviderError("broken", "the upstream's reply lacks the end of a choice");
}

const Embeddings = z.object({
  data: z.array(z.object({ index: z.int().nonnegative().optional(), embedding: z.unknown().optional() })),
  usage: z.unknown().optional(),
});

function vectorsIn(reply: unknown, call: EmbeddingCall): EmbeddingResult {
  const { data } = Embeddings.safeParse(Array.isArray(reply) ? { data: reply } : reply, FIRST_ISSUE);
  if (!data) throw new ProviderError("broken", "the upstream's reply has no embeddings");
  const inOrder = data.data.toSorted((a, b) => (a.index ?? 0) - (b.index ?? 0));
  const vectors = inOrder.map(({ embedding }) => embedding);
  return checkedVectors(vectors, data.usage, call);
}

/** What fetch throws names hosts and addresses; neither is anybody's business. */
const brokenOff = () => new ProviderError("broken", "the connection to the upstream broke off");
