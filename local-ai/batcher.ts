import { BlockPool } from "./block-pool";
import { BLOCK_TOKENS, type Decoder, MAX_ROWS, type Row } from "./decoder";
import { turn } from "./event-loop";

/** A sequence that wants to advance: a prompt, and what happens with what the model makes of it. */
export interface Task {
  /** One token at least. */
  readonly prompt: readonly number[];
  /** Tokens that it will have at most, its prompt among them. */
  readonly capacity: number;
  /** A handle of the decoder's; 0 is the base. */
  readonly adapter: number;
  /** Whose prompts it may share keys and values with, and whose it may not; null shares with nobody. */
  readonly root: string | null;
  readonly wants: "logits" | "state";
  /** The first position of the prompt whose result is wanted. */
  readonly wantedFrom: number;
  /**
   * The result after a position: (vocabulary) logits or (hidden) the last hidden state, to be read at once. After the
   * last token it says the next one, or null at the end; before that its answer means nothing.
   */
  take(result: Float32Array, position: number): number | null;
  /** False while its reader is too far behind. */
  isReady(): boolean;
}

/** What the batcher has done, for those who watch. */
export interface BatchCounters {
  steps: number;
  /** Tokens of all steps. */
  rows: number;
  /** Tokens that needed no computing, because a prompt began as an earlier one. */
  reused: number;
}

/** Prompt tokens of one sequence in one step: a long prompt never stalls those beside it. */
const CHUNK = 16;
/** Tokens between two turns of the event loop. */
const ROWS_PER_TURN = 16;

interface Running {
  readonly task: Task;
  readonly tokens: number[];
  readonly table: number;
  readonly blocks: number[];
  /** What stands before the next block that fills. */
  before: string | null;
  /** Blocks that can be found by others. */
  kept: number;
  /** Positions whose keys and values are there. */
  computed: number;
  readonly end: (error?: unknown) => void;
}

/**
 * Continuous batching (Yu et al., "Orca", OSDI 2022): sequences join and leave between steps, all of them advance in
 * one step, and prompts are read in chunks beside those that already generate. It runs while there is work.
 */
export class Batcher {
  readonly counters: BatchCounters = { steps: 0, rows: 0, reused: 0 };
  readonly #decoder: Decoder;
  readonly #pool: BlockPool;
  readonly #running = new Set<Running>();
  /** Blocks that the running tasks may come to need. */
  #promised = 0;
  #isLooping = false;
  #wake: () => void = () => undefined;

  constructor(decoder: Decoder) {
    this.#decoder = decoder;
    this.#pool = new BlockPool(decoder.blocks);
  }

  /**
   * Settles when the task has said its end, or the signal its abort; the sequence has left by then.
   * @returns prompt tokens that were not computed, because they were known
   * @throws RangeError when there is no room for all that it may become: who calls keeps the number of tasks low
   */
  async run(task: Task, signal: AbortSignal): Promise<number> {
    const { prompt, capacity } = task;
    const blocks = Math.ceil(capacity / BLOCK_TOKENS);
    if (prompt.length === 0 || capacity < prompt.length || this.#promised + blocks > this.#decoder.blocks)
      throw new RangeError(`there is no room for ${capacity} tokens, ${prompt.length} of them a prompt`);
    this.#promised += blocks;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const end = (error?: unknown) => (error === undefined ? resolve() : reject(error));
    const running = this.#join(task, end);
    const known = running.computed;
    const abort = () => this.#leave(running);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    if (!this.#isLooping) void this.#loop();
    this.nudge();
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", abort);
      this.#promised -= blocks;
    }
    return known;
  }

  /** Blocks that no sequence uses. */
  get idleBlocks(): number {
    return this.#pool.available;
  }

  /** A reader has caught up. */
  nudge(): void {
    this.#wake();
  }

  #join(task: Task, end: Running["end"]): Running {
    const { root, prompt, wantedFrom } = task;
    const tokens = [...prompt];
    // What is wanted has to be computed, so only what stands before it is looked up.
    const { blocks, before } =
      root === null ? { blocks: [], before: null } : this.#pool.match(root, tokens.slice(0, wantedFrom + 1));
    const computed = blocks.length * BLOCK_TOKENS;
    const table = this.#decoder.createTable();
    const running: Running = { task, tokens, table, blocks, before, kept: blocks.length, computed, end };
    for (const [index, block] of blocks.entries()) this.#decoder.setBlock(running.table, index, block);
    this.counters.reused += computed;
    this.#running.add(running);
    return running;
  }

  #leave(running: Running, error?: unknown): void {
    if (!this.#running.delete(running)) return;
    this.#pool.release(running.blocks);
    this.#decoder.freeTable(running.table);
    running.end(error);
    this.nudge();
  }

  async #loop(): Promise<void> {
    this.#isLooping = true;
    try {
      for (let rowsSince = 0; this.#running.size > 0; ) {
        const rows = this.#step();
        rowsSince += rows;
        if (rows === 0) await this.#news();
        else if (rowsSince >= ROWS_PER_TURN) {
          rowsSince = 0;
          await turn();
        } else await Promise.resolve(); // readers take what there is
      }
    } catch (error) {
      for (const running of [...this.#running]) this.#leave(running, error);
    } finally {
      this.#isLooping = false;
    }
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** @returns the rows of the step; 0 when nobody is ready */
  #step(): number {
    const parts = this.#pick();
    if (parts.length === 0) return 0;
    const rows = parts.flatMap(({ running, count }) => this.#rowsOf(running, count));
    const { states, logits } = this.#decoder.step(rows);
    this.counters.steps++;
    this.counters.rows += rows.length;
    const { hidden_size, vocab_size } = this.#decoder.config;
    let at = 0;
    for (const { running, count } of parts) {
      const { task, computed } = running;
      running.computed += count;
      this.#keep(running);
      let next: number | null | undefined;
      for (let position = Math.max(computed, task.wantedFrom); position < running.computed; position++, at++) {
        const [from, width] = task.wants === "logits" ? [logits, vocab_size] : [states, hidden_size];
        next = task.take(from.subarray(at * width, (at + 1) * width), position);
      }
      if (running.computed < running.tokens.length) continue;
      if (typeof next === "number" && running.tokens.length < task.capacity) running.tokens.push(next);
      else this.#leave(running);
    }
    return rows.length;
  }

  /** Who advances by how many tokens; those that want logits first, as the decoder has it. */
  #pick(): { readonly running: Running; readonly count: number }[] {
    const parts: { readonly running: Running; readonly count: number }[] = [];
    let room = MAX_ROWS;
    const missing = ({ tokens, computed }: Running) => tokens.length - computed;
    // Who generates goes first, a token each: a prompt that comes takes what is left.
    const ready = [...this.#running].filter(({ task }) => task.isReady());
    for (const running of ready.sort((a, b) => Number(missing(a) > 1) - Number(missing(b) > 1))) {
      const count = Math.min(missing(running), CHUNK, room);
      if (count === 0) continue;
      this.#takeBlocks(running, running.computed + count);
      parts.push({ running, count });
      room -= count;
    }
    return parts.sort((a, b) => Number(a.running.task.wants === "state") - Number(b.running.task.wants === "state"));
  }

  #takeBlocks(running: Running, positions: number): void {
    while (running.blocks.length * BLOCK_TOKENS < positions) {
      const block = this.#pool.take();
      if (block === undefined) throw new Error("more blocks are in use than were promised");
      this.#decoder.setBlock(running.table, running.blocks.length, block);
      running.blocks.push(block);
    }
  }

  #rowsOf({ task, tokens, table, computed }: Running, count: number): Row[] {
    return Array.from({ length: count }, (_, index) => {
      const position = computed + index;
      const wants = position >= task.wantedFrom ? task.wants : "nothing";
      return { token: tokens[position] as number, position, table, adapter: task.adapter, wants };
    });
  }

  /** Blocks that have become full can be found from now on. */
  #keep(running: Running): void {
    const full = Math.floor(running.computed / BLOCK_TOKENS);
    for (let index = running.kept; running.before !== null && index < full; index++) {
      const block = running.blocks[index] as number;
      running.before = this.#pool.keep(running.before, running.tokens, index * BLOCK_TOKENS, block);
      running.kept = index + 1;
    }
  }
}
