import { ProviderError } from "../provider";

/**
 * A model's work under way. Three may end it: the caller's signal, the consumer of its output, and a silence that
 * lasts too long. Whoever does, `signal` tells everything that hangs on the work, at once.
 */
export class Running {
  readonly #abort = new AbortController();
  readonly #follow = () => this.#abort.abort();

  /** @param silenceMs longest wait for one step; null waits as long as the caller does */
  constructor(
    readonly caller: AbortSignal,
    readonly silenceMs: number | null,
  ) {
    if (caller.aborted) this.#abort.abort();
    else caller.addEventListener("abort", this.#follow, { once: true });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  stop(): void {
    this.caller.removeEventListener("abort", this.#follow);
    this.#abort.abort();
  }

  /**
   * Awaits one step, but not longer than the work goes on. Time in which nobody asks for a step is not silence: a
   * slow reader must not look like a dead model.
   * @throws ProviderError `aborted` or `timeout`, or what the step throws
   */
  async wait<T>(step: Promise<T>): Promise<T> {
    const ended = Promise.withResolvers<never>();
    const onAbort = () => ended.reject(new ProviderError("aborted", "the call was stopped"));
    const onSilence = () => ended.reject(new ProviderError("timeout", `no answer for ${this.silenceMs} ms`));
    const timer = this.silenceMs === null ? undefined : setTimeout(onSilence, this.silenceMs);
    this.signal.addEventListener("abort", onAbort, { once: true });
    if (this.signal.aborted) onAbort();
    try {
      return await Promise.race([step, ended.promise]);
    } finally {
      clearTimeout(timer);
      this.signal.removeEventListener("abort", onAbort);
    }
  }

  /** The chunks of `body`, which is cancelled as soon as the work ends, even while nobody reads. */
  open(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
    const reader = body.getReader();
    const cancel = () => void reader.cancel().catch(() => {}); // the other side may be gone already
    this.signal.addEventListener("abort", cancel, { once: true });
    if (this.signal.aborted) cancel();
    return this.#chunks(reader);
  }

  async *#chunks(reader: ReadableStreamDefaultReader<Uint8Array>): AsyncGenerator<Uint8Array> {
    for (;;) {
      const { done, value } = await this.wait(reader.read());
      if (done) return;
      yield value;
    }
  }

  /**
   * Output for a consumer who may leave at any time: before the first step, or in the middle of one. A generator
   * alone would let a leaving consumer wait for the step, and would know nothing of one who never began.
   * @param explain turns what is no ProviderError yet into one
   */
  output<T>(steps: AsyncGenerator<T>, explain: (error: unknown) => ProviderError): AsyncIterableIterator<T> {
    let hasLeft = false;
    const leave = async (): Promise<IteratorResult<T>> => {
      hasLeft = true;
      this.stop();
      await steps.return(undefined).catch(() => {});
      return { done: true, value: undefined };
    };
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: async () => {
        try {
          const step = await steps.next();
          if (step.done) this.stop();
          return step;
        } catch (error) {
          const failure = this.failure(error, explain);
          if (hasLeft) return { done: true, value: undefined };
          throw failure;
        }
      },
      return: leave,
      throw: async (error) => {
        await leave();
        throw error;
      },
    };
  }

  /** Ends the work because of `error`. Whatever breaks after the caller has stopped is only its consequence. */
  failure(error: unknown, explain: (error: unknown) => ProviderError): ProviderError {
    const isConsequence = this.caller.aborted;
    this.stop();
    if (isConsequence) return new ProviderError("aborted", "the caller stopped the call");
    return error instanceof ProviderError ? error : explain(error);
  }
}
