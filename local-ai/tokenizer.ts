/**
 * Byte-level byte-pair encoding (Sennrich et al. 2016; byte alphabet as in GPT-2), exactly as `tokenizer.json`
 * describes it. Text never becomes a special token: those are written by the chat template alone, so what a user
 * types cannot open or close a role.
 */
export interface TokenizerFile {
  readonly added_tokens: readonly { readonly id: number; readonly content: string }[];
  readonly model: { readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly (readonly string[])[] };
}

/** The pre-tokenizer's pattern; its `\s` is Unicode's White_Space, which JavaScript's is not quite. */
const PIECE =
  /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
/** Pieces that are remembered with their encoding: words, whose text is short. */
const MAX_REMEMBERED_PIECES = 20_000;
const MAX_REMEMBERED_CHARACTERS = 32;

interface Merge {
  readonly rank: number;
  /** The token that two neighbours become. */
  readonly id: number;
}

export class Tokenizer {
  /** No token stands for more bytes of text. */
  readonly longestTokenBytes: number;
  readonly #idOfByte: readonly number[];
  readonly #merges = new Map<number, Merge>(); // by pairOf(left, right)
  readonly #bytesOfToken: Uint8Array[] = [];
  readonly #special = new Map<string, number>();
  readonly #encodedPieces = new Map<string, readonly number[]>();

  /** @throws TypeError when the file contradicts itself */
  constructor(file: TokenizerFile) {
    const { vocab, merges } = file.model;
    const idOf = (token: string): number => {
      const id = Object.hasOwn(vocab, token) ? vocab[token] : undefined;
      if (id === undefined) throw new TypeError(`tokenizer: "${token}" is not in the vocabulary`);
      return id;
    };
    for (const [rank, [left = "", right = ""]] of merges.entries()) {
      this.#merges.set(pairOf(idOf(left), idOf(right)), { rank, id: idOf(left + right) });
    }
    const made = new Set(Array.from(this.#merges.values(), ({ id }) => id));
    if (made.size !== merges.length) throw new TypeError("tokenizer: two merges make the same token");
    this.#idOfByte = BYTE_CHARACTERS.map(idOf);
    for (const { id, content } of file.added_tokens) this.#special.set(content, id);
    const specialIds = new Set(this.#special.values());
    const byteOfCharacter = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));
    for (const [token, id] of Object.entries(vocab)) {
      const bytes = specialIds.has(id) ? [] : [...token].map((character) => byteOfCharacter.get(character) ?? 0);
      this.#bytesOfToken[id] = Uint8Array.from(bytes);
    }
    this.longestTokenBytes = this.#bytesOfToken.reduce((longest, bytes) => Math.max(longest, bytes.length), 1);
  }

  /** Id of a special token such as `<|end|>`. */
  special(token: string): number {
    const id = this.#special.get(token);
    if (id === undefined) throw new TypeError(`no special token ${token}`);
    return id;
  }

  /** Token ids of plain text; never a special one. */
  encode(text: string): number[] {
    return [...text.toWellFormed().matchAll(PIECE)].flatMap(([piece]) => this.#encodePiece(piece));
  }

  /** Bytes of a token; none for a special one. */
  bytes(id: number): Uint8Array {
    return this.#bytesOfToken[id] ?? new Uint8Array();
  }

  decode(ids: readonly number[]): string {
    const decoder = new StreamingDecoder(this);
    return ids.map((id) => decoder.push(id)).join("") + decoder.end();
  }

  #encodePiece(piece: string): readonly number[] {
    const known = this.#encodedPieces.get(piece);
    if (known) return known;
    const ids = this.#merge(Array.from(new TextEncoder().encode(piece), (byte) => this.#idOfByte[byte] as number));
    if (piece.length > MAX_REMEMBERED_CHARACTERS) return ids;
    if (this.#encodedPieces.size >= MAX_REMEMBERED_PIECES) this.#encodedPieces.clear();
    this.#encodedPieces.set(piece, ids);
    return ids;
  }

  /** All tokens that stand for text, with their bytes. */
  textTokens(): (readonly [id: number, bytes: Uint8Array])[] {
    return this.#bytesOfToken.flatMap((bytes, id) => (bytes.length > 0 ? [[id, bytes] as const] : []));
  }

  /**
   * Applies the merges by rank until none is left, of one rank from the left: each token is made by one merge only, so
   * what a merge makes can only take part in merges of higher rank. The places of all merges wait in one queue, so
   * that a long piece costs little more for each of its bytes than a short one.
   */
  #merge(bytes: readonly number[]): number[] {
    const ids = Int32Array.from(bytes);
    const count = ids.length;
    const after = Int32Array.from(ids, (_, at) => at + 1); // the next one that is left
    const before = Int32Array.from(ids, (_, at) => at - 1);
    const places = new LeastFirst();
    const offer = (at: number) => {
      const next = at < 0 ? count : (after[at] as number);
      const merge = next < count ? this.#merges.get(pairOf(ids[at] as number, ids[next] as number)) : undefined;
      if (merge) places.push(merge.rank * PLACES + at);
    };
    for (let at = 0; at < count; at++) offer(at);
    for (let least = places.pop(); least !== undefined; least = places.pop()) {
      const at = least % PLACES;
      const next = after[at] as number;
      const isGone = ids[at] === GONE || next >= count;
      const merge = isGone ? undefined : this.#merges.get(pairOf(ids[at] as number, ids[next] as number));
      if (merge?.rank !== Math.floor(least / PLACES)) continue; // one of the two has become another since
      ids[at] = merge.id;
      ids[next] = GONE;
      after[at] = after[next] as number;
      if ((after[at] as number) < count) before[after[at] as number] = at;
      offer(before[at] as number);
      offer(at);
    }
    return Array.from(ids).filter((id) => id !== GONE);
  }
}

/** Of a token that has become part of the one before it. */
const GONE = -1;
/** A rank and a place as one number, in their order. */
const PLACES = 2 ** 32;

/** Numbers, the least first: a binary heap. */
class LeastFirst {
  readonly #heap: number[] = [];

  push(value: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(value);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((heap[parent] as number) <= value) break;
      heap[at] = heap[parent] as number;
      at = parent;
    }
    heap[at] = value;
  }

  pop(): number | undefined {
    const heap = this.#heap;
    const least = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return least;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && (heap[child + 1] as number) < (heap[child] as number)) child++;
      if ((heap[child] as number) >= last) break;
      heap[at] = heap[child] as number;
      at = child;
    }
    heap[at] = last;
    return least;
  }
}

/** One number for two neighbouring ids. */
const pairOf = (left: number, right: number) => left * 65_536 + right;

/** Decodes token by token and never lets half of a character out. */
export class StreamingDecoder {
  readonly #decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

  constructor(readonly tokenizer: Tokenizer) {}

  push(id: number): string {
    return this.#decoder.decode(this.tokenizer.bytes(id), { stream: true });
  }

  end(): string {
    return this.#decoder.decode();
  }
}

/** The printable character that stands for each byte: itself where it is printable, else one above U+0100. */
const BYTE_CHARACTERS: readonly string[] = (() => {
  const isPrintable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : next++));
})();
