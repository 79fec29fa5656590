import { outOfCapacity } from "./errors";

/**
 * A bounded number of runs at once; the rest wait in line, as Workers AI lets them unless told to refuse when busy.
 */
export class Slots {
  #free: number;
  readonly #line: (() => void)[] = [];

  constructor(
    slots: number,
    readonly maxWaiting: number,
  ) {
    this.#free = slots;
  }

  /** @throws InferenceUpstreamError 3040 when the line is full, too */
  async take(signal: AbortSignal): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    if (this.#line.length >= this.maxWaiting) throw outOfCapacity();
    const turn = Promise.withResolvers<void>();
    this.#line.push(turn.resolve);
    const leave = () => {
      const place = this.#line.indexOf(turn.resolve);
      if (place === -1) return; // its turn has come already
      this.#line.splice(place, 1);
      turn.reject(signal.reason);
    };
    signal.addEventListener("abort", leave, { once: true });
    await turn.promise;
    signal.removeEventListener("abort", leave);
  }

  /** Hands the slot to whoever waits longest. */
  give(): void {
    const next = this.#line.shift();
    if (next) next();
    else this.#free++;
  }
}
