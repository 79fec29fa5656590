export interface MeterReading {
  /** Calls that began to compute. */
  readonly calls: number;
  readonly promptTokens: number;
  /** Tokens that were made, whether or not anybody read them. */
  readonly completionTokens: number;
  /** Calls under way now. */
  readonly running: number;
}
export type MeterTotals = Omit<MeterReading, "running">;

/** What the model computes, counted where it is computed. */
export class Meter {
  #totals = { calls: 0, promptTokens: 0, completionTokens: 0 };
  #running = 0;

  /** @param save called with the totals whenever a call begins or ends */
  constructor(readonly save: (totals: MeterTotals) => void) {}

  /** Goes on from totals that were saved. */
  restore(totals: MeterTotals): void {
    this.#totals = { ...totals };
  }

  begin(promptTokens: number): void {
    this.#running++;
    this.#totals.calls++;
    this.#totals.promptTokens += promptTokens;
    this.save({ ...this.#totals });
  }

  countToken(): void {
    this.#totals.completionTokens++;
  }

  end(): void {
    this.#running--;
    this.save({ ...this.#totals });
  }

  read(): MeterReading {
    return { ...this.#totals, running: this.#running };
  }
}
