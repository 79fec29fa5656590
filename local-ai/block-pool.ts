import { BLOCK_TOKENS } from "./decoder";

/** A block of keys and values that is full, and can be found again by what it holds and what stands before it. */
interface Kept {
  readonly id: number;
  readonly name: string;
  readonly block: number;
}

/** What stands before a sequence's next block: a root's name, or the block before. */
export type Before = string;

/**
 * The cache's blocks: given out, counted, and kept while there is room, so that a prompt that begins as an earlier
 * one need not be computed again (after vLLM's automatic prefix caching). A block is found by the exact tokens of
 * its whole prefix under one root; nothing is compared by a hash, and roots never share.
 */
export class BlockPool {
  readonly #free: number[];
  readonly #users = new Map<number, number>();
  readonly #byName = new Map<string, Kept>();
  readonly #byBlock = new Map<number, Kept>();
  /** Kept, and used by nobody: the one used longest ago first. */
  readonly #idle = new Set<Kept>();
  #made = 0;

  constructor(blocks: number) {
    this.#free = Array.from({ length: blocks }, (_, index) => blocks - 1 - index);
  }

  /** Blocks that a new owner could have now. */
  get available(): number {
    return this.#free.length + this.#idle.size;
  }

  /**
   * The kept blocks that hold the beginning of these tokens, taken for one more user. The last token is never among
   * them: what comes after it has to be computed.
   */
  match(root: Before, tokens: readonly number[]): { readonly blocks: number[]; readonly before: Before } {
    const blocks: number[] = [];
    let before = root;
    for (let from = 0; from + BLOCK_TOKENS < tokens.length; from += BLOCK_TOKENS) {
      const kept = this.#byName.get(nameOf(before, tokens, from));
      if (!kept) break;
      this.#idle.delete(kept);
      this.#users.set(kept.block, (this.#users.get(kept.block) ?? 0) + 1);
      blocks.push(kept.block);
      before = String(kept.id);
    }
    return { blocks, before };
  }

  /** @returns undefined when all are in use */
  take(): number | undefined {
    const block = this.#free.pop() ?? this.#evict();
    if (block !== undefined) this.#users.set(block, 1);
    return block;
  }

  /**
   * A block has been filled with the tokens from `from` on. Where another holds the same already, that one stays.
   * @returns what stands before the next block
   */
  keep(before: Before, tokens: readonly number[], from: number, block: number): Before {
    const name = nameOf(before, tokens, from);
    const known = this.#byName.get(name);
    if (known) return String(known.id);
    const kept = { id: this.#made++, name, block };
    this.#byName.set(name, kept);
    this.#byBlock.set(block, kept);
    return String(kept.id);
  }

  /** One user less of each; the last ones of a sequence are forgotten first. */
  release(blocks: readonly number[]): void {
    for (const block of blocks.toReversed()) {
      const users = (this.#users.get(block) ?? 0) - 1;
      if (users > 0) {
        this.#users.set(block, users);
        continue;
      }
      this.#users.delete(block);
      const kept = this.#byBlock.get(block);
      if (kept) this.#idle.add(kept);
      else this.#free.push(block);
    }
  }

  #evict(): number | undefined {
    for (const kept of this.#idle) {
      this.#idle.delete(kept);
      this.#byName.delete(kept.name);
      this.#byBlock.delete(kept.block);
      return kept.block;
    }
    return undefined;
  }
}

const nameOf = (before: Before, tokens: readonly number[], from: number) =>
  `${before}:${tokens.slice(from, from + BLOCK_TOKENS).join()}`;
