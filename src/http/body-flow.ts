import { ApiError } from "../errors";

/** A body that brings nothing for so long is given up. */
export const BODY_PATIENCE_MS = 30_000;
/** What a body must bring on average, so that a trickle does not hold a request open for ever. */
export const BODY_BYTES_PER_SECOND = 8 * 1024;

/**
 * The patience with one body: waiting uses it up, and bytes earn it back, at most to what it was. So nothing for 30 s
 * ends it, and so does a body that stays below 8 KiB a second for long. Only waiting counts, not the time that its
 * reader takes with what has come.
 */
export class BodyFlow {
  #leftMs: number;
  /** One for all reads: bodies may come in very many pieces. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #waiting: { readonly sinceMs: number; readonly giveUp: (error: unknown) => void } | undefined;

  constructor(readonly patienceMs = BODY_PATIENCE_MS) {
    this.#leftMs = patienceMs;
  }

  /** What is read next. @throws ApiError 408 `request_timeout` where it does not come; `cancel` has been called then */
  async next<T extends { readonly done: boolean; readonly value?: Uint8Array | undefined }>(
    read: () => Promise<T>,
    cancel: (reason: unknown) => Promise<unknown>,
  ): Promise<T> {
    const sinceMs = Date.now();
    try {
      const result = await new Promise<T>((resolve, giveUp) => {
        this.#waiting = { sinceMs, giveUp };
        this.#timer ??= setTimeout(this.#look, this.#leftMs);
        read().then(resolve, giveUp);
      });
      this.#waiting = undefined;
      const earnedMs = ((result.value?.byteLength ?? 0) * 1000) / BODY_BYTES_PER_SECOND;
      this.#leftMs = Math.min(this.patienceMs, this.#leftMs - (Date.now() - sinceMs) + earnedMs);
      if (result.done) this.#stop();
      else if (this.#leftMs <= 0) throw requestTimeout(this.patienceMs);
      return result;
    } catch (error) {
      this.#stop();
      cancel(error).catch(() => {}); // its sender may have gone; nobody waits for a body that stalls
      throw error;
    }
  }

  #stop(): void {
    this.#waiting = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #look = (): void => {
    this.#timer = undefined;
    if (!this.#waiting) return; // its reader takes its time
    const leftMs = this.#leftMs - (Date.now() - this.#waiting.sinceMs);
    if (leftMs <= 0) this.#waiting.giveUp(requestTimeout(this.patienceMs));
    else this.#timer = setTimeout(this.#look, leftMs);
  };
}

const requestTimeout = (patienceMs: number) =>
  new ApiError(
    "request_timeout",
    `The request body stalled: nothing for ${patienceMs / 1000} s, or less than ${BODY_BYTES_PER_SECOND / 1024} KiB a second for long. Send it again.`,
  );
