/**
 * Byte-level byte-pair encoding (Sennrich et al. 2016; byte alphabet as in GPT-2), exactly as `tokenizer.json`
 * describes it. Text never becomes a special token: those are written by the chat template alone, so what a user
 * types cannot open or close a role.
 */
export interface TokenizerFile {
  readonly added_tokens: readonly { readonly id: number; readonly content: string }[];
  readonly model: { readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly (readonly string[])[] };
}

/** The pre-tokenizer's pattern, word for word from the file. */
const PIECE = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
/** Longer pieces (a page without a space) are cut, so that encoding stays linear in the text. */
const MAX_PIECE_BYTES = 256;

export class Tokenizer {
  readonly #vocab: Readonly<Record<string, number>>;
  readonly #rank = new Map<string, number>();
  readonly #bytesOfToken: Uint8Array[] = [];
  readonly #special = new Map<string, number>();
  readonly #specialIds = new Set<number>();
  readonly #encodedPieces = new Map<string, readonly number[]>();

  constructor(file: TokenizerFile) {
    this.#vocab = file.model.vocab;
    file.model.merges.forEach(([left, right], rank) => {
      this.#rank.set(`${left} ${right}`, rank);
    });
    const byteOfCharacter = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));
    for (const { id, content } of file.added_tokens) {
      this.#special.set(content, id);
      this.#specialIds.add(id);
    }
    for (const [token, id] of Object.entries(this.#vocab)) {
      const bytes = this.#specialIds.has(id) ? [] : [...token].map((character) => byteOfCharacter.get(character) ?? 0);
      this.#bytesOfToken[id] = Uint8Array.from(bytes);
    }
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
    const bytes = new TextEncoder().encode(piece);
    const ids: number[] = [];
    for (let from = 0; from < bytes.length; from += MAX_PIECE_BYTES) {
      ids.push(
        ...this.#merge([...bytes.subarray(from, from + MAX_PIECE_BYTES)].map((byte) => BYTE_CHARACTERS[byte] ?? "")),
      );
    }
    if (this.#encodedPieces.size > 20_000) this.#encodedPieces.clear();
    this.#encodedPieces.set(piece, ids);
    return ids;
  }

  /** Joins the best-ranked neighbours until none is left. */
  #merge(characters: string[]): number[] {
    const parts = characters;
    for (;;) {
      let best = Number.POSITIVE_INFINITY;
      let at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.#rank.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank !== undefined && rank < best) [best, at] = [rank, i];
      }
      if (at === -1) return parts.map((part) => this.#vocab[part] as number);
      parts.splice(at, 2, `${parts[at]}${parts[at + 1]}`);
    }
  }
}

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
