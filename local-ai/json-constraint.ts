import type { Constraint } from "./generate";
import type { Frame } from "./json-grammar";
import type { Tokenizer } from "./tokenizer";

/** What is expected, the next first; null at the end of the document. */
interface Stack {
  readonly frame: Frame;
  readonly below: Stack | null;
  readonly least: number;
  readonly name: string;
}
type Stacks = readonly (Stack | null)[];

export interface TokenTrie {
  readonly children: Map<number, TokenTrie>;
  readonly ids: number[];
}

const push = (frames: readonly Frame[], below: Stack | null): Stack | null =>
  frames.reduceRight<Stack | null>((rest, frame) => {
    const least = frame.least + (rest?.least ?? 0);
    return { frame, below: rest, least, name: `${frame.name}\n${rest?.name ?? ""}` };
  }, below);

function step(stacks: Stacks, byte: number): Stacks {
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
  return [...found.values()];
}

const isDone = (stack: Stack | null): boolean => stack === null || (stack.frame.mayEnd === true && isDone(stack.below));
const leastOf = (stacks: Stacks) => Math.min(...stacks.map((stack) => stack?.least ?? 0));

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
  #stacks: Stacks;
  #tokensLeft: number;
  /** For as long as there are tokens enough, the same expectations allow the same tokens. */
  readonly #masks = new Map<string, Uint8Array>();

  /** @throws RangeError when so many tokens may not be enough for any document */
  constructor(grammar: Frame, tokenizer: Tokenizer, trie: TokenTrie, maxTokens: number) {
    if (grammar.least > maxTokens)
      throw new RangeError(`the shortest reply that fits may need ${grammar.least} tokens, and ${maxTokens} are left`);
    this.#trie = trie;
    this.#bytesOf = new Map(tokenizer.textTokens());
    this.#end = tokenizer.special("<|end|>");
    this.#stacks = [push([grammar], null)];
    this.#tokensLeft = maxTokens;
  }

  mask(logits: Float32Array): void {
    const allowed = this.#allowed(logits.length);
    for (let id = 0; id < logits.length; id++) if (allowed[id] === 0) logits[id] = Number.NEGATIVE_INFINITY;
  }

  advance(token: number): void {
    for (const byte of this.#bytesOf.get(token) ?? []) this.#stacks = step(this.#stacks, byte);
    this.#tokensLeft--;
  }

  #allowed(vocabulary: number): Uint8Array {
    const longest = 64;
    const isTight = this.#tokensLeft < leastOf(this.#stacks) + longest;
    const name = isTight ? undefined : this.#stacks.map((stack) => stack?.name ?? "").join("\n\n");
    const known = name === undefined ? undefined : this.#masks.get(name);
    if (known) return known;
    const allowed = new Uint8Array(vocabulary);
    if (this.#stacks.some(isDone)) allowed[this.#end] = 1;
    const follow = (node: TokenTrie, stacks: Stacks): void => {
      // Tight: what cannot be completed any more is no choice. Else every state can be.
      if (node.ids.length > 0 && leastOf(stacks) <= this.#tokensLeft - 1) for (const id of node.ids) allowed[id] = 1;
      for (const [byte, child] of node.children) {
        const then = step(stacks, byte);
        if (then.length > 0) follow(child, then);
      }
    };
    follow(this.#trie, this.#stacks);
    if (name !== undefined) this.#masks.set(name, allowed);
    return allowed;
  }
}
