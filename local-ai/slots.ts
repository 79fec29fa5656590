import { outOfCapacity } from "./errors";

/** A call's place: at work, or waiting in line for it. */
export interface Place {
  /** Settles when the call may begin, or when it left the line. */
  readonly turn: Promise<void>;
  /** Gives the place to whoever waits longest; a second time changes nothing. */
  leave(): void;
}

/** A bounded number of runs at once; the rest wait in line, as Workers AI lets them unless told to refuse when busy. */
export class Slots {
  #free: number;
  readonly #line: (() => void)[] = [];

  constructor(
    slots: number,
    readonly maxWaiting: number,
  ) {
    this.#free = slots;
  }

  /**
   * Whoever enters must leave, in whatever way the call ends.
   * @throws InferenceUpstreamError 3040 when nothing is free and the line is full, or the caller does not wait
   */
  enter(mayWait = true): Place {
    const { promise: turn, resolve: begin } = Promise.withResolvers<void>();
    if (this.#free > 0) {
      this.#free--;
      begin();
    } else {
      if (!mayWait || this.#line.length >= this.maxWaiting) throw outOfCapacity();
      this.#line.push(begin);
    }
    let hasLeft = false;
    const leave = () => {
      if (hasLeft) return;
      hasLeft = true;
      const waitingAt = this.#line.indexOf(begin);
      if (waitingAt === -1) return this.#give();
      this.#line.splice(waitingAt, 1);
      begin();
    };
    return { turn, leave };
  }

  #give(): void {
    const next = this.#line.shift();
    if (next) next();
    else this.#free++;
  }
}
