import type { Generated } from "./generate";

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  /** Of the prompt, what was known from an earlier one that begins alike. */
  readonly prompt_tokens_details?: { readonly cached_tokens: number };
}

export const usageOf = (prompt: number, completion: number, cached = 0): Usage => ({
  prompt_tokens: prompt,
  completion_tokens: completion,
  total_tokens: prompt + completion,
  ...(cached > 0 ? { prompt_tokens_details: { cached_tokens: cached } } : {}),
});

const encoder = new TextEncoder();

/**
 * A generation as the server-sent events of Workers AI, each as soon as its text is known. Bytes, because only byte
 * streams cross RPC. Little is made ahead of the reader, and cancelling stops the generation.
 * @param abort stops `generated` in the middle of a step
 * @param onEnd called when the generation is over in whatever way, perhaps twice
 */
export function eventStream(
  generated: AsyncGenerator<Generated>,
  promptTokens: number,
  abort: AbortController,
  onEnd: () => void,
): ReadableStream<Uint8Array> {
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      try {
        const { done, value } = await generated.next();
        if (abort.signal.aborted) return;
        // Encoded anew each time: a byte stream takes the buffer away from whoever enqueues it.
        controller.enqueue(encoder.encode(done ? "data: [DONE]\n\n" : eventOf(value, promptTokens)));
        if (!done) return;
        controller.close();
        onEnd();
      } catch (error) {
        onEnd();
        throw error;
      }
    },
    async cancel() {
      abort.abort();
      onEnd(); // first: a generation that waits for its turn ends only when it leaves the line
      await generated.return(undefined);
    },
  });
}

function eventOf(made: Generated, promptTokens: number): string {
  const data =
    made.type === "text"
      ? { response: made.text }
      : {
          response: "",
          finish_reason: made.reason,
          usage: usageOf(promptTokens, made.completionTokens, made.cachedTokens),
        };
  return `data: ${JSON.stringify(data)}\n\n`;
}
