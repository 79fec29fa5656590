import type { Constraint } from "./generate";
import type { Frame } from "./json-frames";
import type { Tokenizer } from "./tokenizer";

/** What is expected, the next first; null at the end of the document. */
interface Stack {
  readonly frame: Frame;
  readonly below: Stack | null;
  readonly least: number;
  readonly name: string;
}
type Stacks = readonly (Stack | null)[];

/** What may be expected at one point, and what each byte makes of it: found out once. */
interface State {
  readonly stacks: Stacks;
  readonly least: number;
  readonly isDone: boolean;
  /** By byte; null where it leads nowhere. */
  readonly next: Map<number, State | null>;
  /** The tokens that may follow while there are tokens enough. */
  allowed?: Uint8Array;
}
/** States that are remembered. */
const MAX_STATES = 4_096;

export interface TokenTrie {
  readonly children: Map<number, TokenTrie>;
  readonly ids: number[];
}

const push = (frames: readonly Frame[], below: Stack | null): Stack | null =>
  frames.reduceRight<Stack | null>((rest, frame) => {
    const least = frame.least + (rest?.least ?? 0);
    return { frame, below: rest, least, name: `${frame.name}\n${rest?.name ?? ""}` };
  }, below);

function step(stacks: Stacks, byte: number): Map<string, Stack | null> {
  const found = new Map<string, Stack | null>();
  const take = (stack: Stack | null): void => {
    if (stack === null) return;
    for (const frames of stack.frame.next(byte)) {
      const then = push(frames, stack.below);
      if ((then?.least ?? 0) < Number.POSITIVE_INFINITY) found.set(then?.name ?? "", then);
    }
    if (stack.frame.mayEnd) take(stack.below);
  };
  for (const stack of stacks) take(stack);
  return found;
}

const isDone = (stack: Stack | null): boolean => stack === null || (stack.frame.mayEnd === true && isDone(stack.below));
const stateOf = (stacks: Stacks): State => ({
  stacks,
  least: stacks.reduce((least, stack) => Math.min(least, stack?.least ?? 0), Number.POSITIVE_INFINITY),
  isDone: stacks.some(isDone),
  next: new Map(),
});

/** A grammar as the states that were met, so that a byte in a state that is known is one look into a table. */
class States {
  readonly #byName = new Map<string, State>();
  /** Bytes that had to be followed through the grammar: what all this costs. */
  steps = 0;

  after(state: State, byte: number): State | null {
    const known = state.next.get(byte);
    if (known !== undefined) return known;
    this.steps += state.stacks.length;
    const found = step(state.stacks, byte);
    const then = found.size === 0 ? null : this.#named([...found.keys()].join("\n\n"), [...found.values()]);
    state.next.set(byte, then);
    return then;
  }

  #named(name: string, stacks: Stacks): State {
    const known = this.#byName.get(name);
    if (known) return known;
    if (this.#byName.size >= MAX_STATES) this.forget();
    const state = stateOf(stacks);
    this.#byName.set(name, state);
    return state;
  }

  /** Also what the states know of each other, or none of them would ever be gone. */
  forget(): void {
    for (const state of this.#byName.values()) state.next.clear();
    this.#byName.clear();
  }
}

/** All tokens by their bytes, so that those with a common beginning are followed together. */
export function tokenTrie(tokenizer: Tokenizer): TokenTrie {
  const root: TokenTrie = { children: new Map(), ids: [] };
  for (const [id, bytes] of tokenizer.textTokens()) {
    let node = root;
    for (const byte of bytes) {
      const next = node.children.get(byte) ?? { children: new Map(), ids: [] };
      node.children.set(byte, next);
      node = next;
    }
    node.ids.push(id);
  }
  return root;
}

/**
 * Keeps a reply inside a grammar, token by token (as Willard and Louf, "Efficient Guided Generation for Large Language
 * Models", 2023, but over a stack): what is not allowed cannot be chosen, the end comes when the document is complete,
 * and a token is allowed only if the document can still be completed with those that are left, a byte each.
 */
export class JsonConstraint implements Constraint {
  readonly #trie: TokenTrie;
  readonly #bytesOf: ReadonlyMap<number, Uint8Array>;
  readonly #end: number;
  readonly #states = new States();
  #state: State | null;
  #tokensLeft: number;

  /** @throws RangeError when so many tokens may not be enough for any document */
  constructor(grammar: Frame, tokenizer: Tokenizer, trie: TokenTrie, maxTokens: number) {
    if (grammar.least > maxTokens)
      throw new RangeError(`the shortest reply that fits may need ${grammar.least} tokens, and ${maxTokens} are left`);
    this.#trie = trie;
    this.#bytesOf = new Map(tokenizer.textTokens());
    this.#end = tokenizer.special("<|end|>");
    this.#state = stateOf([push([grammar], null)]);
    this.#tokensLeft = maxTokens;
  }

  /** Bytes that were followed through the grammar so far, each possibility of it by itself. */
  get steps(): number {
    return this.#states.steps;
  }

  mask(logits: Float32Array): void {
    const allowed = this.#allowed(logits.length);
    for (let id = 0; id < logits.length; id++) if (allowed[id] === 0) logits[id] = Number.NEGATIVE_INFINITY;
  }

  advance(token: number): void {
    for (const byte of this.#bytesOf.get(token) ?? [])
      this.#state = this.#state && this.#states.after(this.#state, byte);
    this.#tokensLeft--;
  }

  #allowed(vocabulary: number): Uint8Array {
    const longest = 64;
    const start = this.#state;
    if (!start) return new Uint8Array(vocabulary);
    const isTight = this.#tokensLeft < start.least + longest;
    if (!isTight && start.allowed) return start.allowed;
    const allowed = new Uint8Array(vocabulary);
    if (start.isDone) allowed[this.#end] = 1;
    const follow = (node: TokenTrie, state: State): void => {
      // Tight: what cannot be completed any more is no choice. Else every state can be.
      if (node.ids.length > 0 && state.least <= this.#tokensLeft - 1) for (const id of node.ids) allowed[id] = 1;
      for (const [byte, child] of node.children) {
        const then = this.#states.after(state, byte);
        if (then) follow(child, then);
      }
    };
    follow(this.#trie, start);
    if (!isTight) start.allowed = allowed;
    return allowed;
  }
}
