/**
 * Group commit: everything that arrives while a commit is under way goes into the next one, as one transaction.
 * An idle gate commits at once; there is no timer.
 */
export class GroupCommit {
  #waiting: PromiseWithResolvers<void>[] = [];
  #running = false;

  /**
   * @param save writes all that is not yet durable; runs inside one transaction, synchronously
   * @param sync settles when that transaction is durable
   * @param failed called once when a commit failed: memory is ahead of storage then and must be thrown away
   */
  constructor(
    readonly save: () => void,
    readonly sync: () => Promise<void>,
    readonly failed: (error: unknown) => void,
  ) {}

  /** Settles when everything that was in memory at the time of the call is durable. */
  durable(): Promise<void> {
    const caller = Promise.withResolvers<void>();
    this.#waiting.push(caller);
    if (!this.#running) void this.#run();
    return caller.promise;
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#waiting.length > 0) {
      const group = this.#waiting;
      this.#waiting = [];
      try {
        this.save();
        await this.sync();
        for (const caller of group) caller.resolve();
      } catch (error) {
        for (const caller of [...group, ...this.#waiting]) caller.reject(error);
        this.#waiting = [];
        this.failed(error);
        break;
      }
    }
    this.#running = false;
  }
}
