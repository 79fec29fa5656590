import { createHash } from "node:crypto";
import { z } from "zod";
import { scanJson } from "../core/json-scan";
import { FIRST_ISSUE } from "../first-issue";

/** Purposes whose files are JSON Lines, and what a line of each must be. */
const text = z.string();
const LINES = {
  batch: z.looseObject({
    custom_id: text.min(1).max(512),
    method: z.literal("POST"),
    url: z.string().startsWith("/v1/"),
    body: z.looseObject({ model: text.min(1) }),
  }),
  "fine-tune": z.looseObject({
    messages: z
      .array(z.looseObject({ role: z.enum(["system", "developer", "user", "assistant", "tool"]) }))
      .min(1)
      .refine((messages) => messages.some(({ role }) => role === "assistant"), "there is no message of the assistant"),
  }),
} as const;
type LinedPurpose = keyof typeof LINES;
const PURPOSES = Object.keys(LINES) as LinedPurpose[];

const MAX_LINE_CHARACTERS = 2 * 1024 * 1024;
/** Requests and bytes of one batch file, as OpenAI's batch guide says. */
export const MAX_BATCH_LINES = 50_000;
const MAX_BATCH_BYTES = 200 * 1024 * 1024;

/**
 * Looks at a file as it passes, line by line. The purpose may be told only after the file, so the first mistake for
 * each purpose is kept. Beside one line it holds a digest of each `custom_id`, {@link MAX_BATCH_LINES} at most.
 */
export class JsonLines {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });
  readonly #problems = new Map<LinedPurpose, string>();
  /** Some 128 bits of each id's SHA-256: two that are alike are one, whatever their length. */
  readonly #customIds = new Set<string>();
  /** Of the line that has not ended yet: joined once, however small the pieces are. */
  #rest: string[] = [];
  #restCharacters = 0;
  #bytes = 0;
  #line = 0;
  #lines = 0;

  /** Digests that are held now. */
  get heldDigests(): number {
    return this.#customIds.size;
  }

  push(bytes: Uint8Array): void {
    this.#bytes += bytes.byteLength;
    if (this.#bytes > MAX_BATCH_BYTES) this.#problem(`it is larger than ${MAX_BATCH_BYTES / 1024 / 1024} MiB`, "batch");
    if (this.#isHopeless) return;
    this.#read(() => this.#decoder.decode(bytes, { stream: true }));
  }

  end(): void {
    if (!this.#isHopeless) this.#read(() => `${this.#decoder.decode()}\n`);
    if (this.#lines === 0) this.#problem("the file has no lines");
  }

  /** What is wrong with it for a purpose; undefined where nothing is, or where it need not be JSON Lines. */
  problemFor(purpose: string): string | undefined {
    return this.#problems.get(purpose as LinedPurpose);
  }

  get #isHopeless(): boolean {
    return this.#problems.size === PURPOSES.length;
  }

  #read(decode: () => string): void {
    let text: string;
    try {
      text = decode();
    } catch {
      this.#problem(`line ${this.#line + 1}: not valid UTF-8`);
      return;
    }
    let from = 0;
    for (let to = text.indexOf("\n"); to >= 0; to = text.indexOf("\n", from)) {
      this.#check(this.#rest.join("") + text.slice(from, to));
      this.#rest = [];
      this.#restCharacters = 0;
      from = to + 1;
    }
    if (from < text.length) this.#rest.push(text.slice(from));
    this.#restCharacters += text.length - from;
    if (this.#restCharacters > MAX_LINE_CHARACTERS) {
      this.#problem(`line ${this.#line + 1}: longer than ${MAX_LINE_CHARACTERS} characters`);
      this.#rest = [];
      this.#restCharacters = 0;
    }
  }

  #check(line: string): void {
    this.#line++;
    if (line.trim() === "") return;
    this.#lines++;
    const outline = scanJson(line); // a line has the bounds of a body
    if ("problem" in outline) {
      this.#problem(`line ${this.#line}: ${outline.what}`);
      return;
    }
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.#problem(`line ${this.#line}: not JSON`);
      return;
    }
    for (const purpose of PURPOSES) {
      if (this.#problems.has(purpose)) continue;
      const [issue] = LINES[purpose].safeParse(value, FIRST_ISSUE).error?.issues ?? [];
      if (issue) this.#problem(`line ${this.#line}: '${issue.path.join(".")}' ${issue.message}`, purpose);
    }
    this.#checkCustomId(value);
  }

  #checkCustomId(value: unknown): void {
    if (this.#problems.has("batch")) return;
    const { custom_id } = value as { custom_id: string };
    const digest = createHash("sha256").update(custom_id, "utf16le").digest("base64").slice(0, 22);
    if (this.#customIds.has(digest))
      this.#problem(`line ${this.#line}: the custom_id '${custom_id}' is there twice`, "batch");
    else if (this.#customIds.size === MAX_BATCH_LINES)
      this.#problem(`line ${this.#line}: a batch has at most ${MAX_BATCH_LINES} requests`, "batch");
    else this.#customIds.add(digest);
  }

  #problem(message: string, ...purposes: readonly LinedPurpose[]): void {
    for (const purpose of purposes.length > 0 ? purposes : PURPOSES)
      if (!this.#problems.has(purpose)) this.#problems.set(purpose, message);
    if (this.#problems.has("batch")) this.#customIds.clear(); // nobody asks for them any more
  }
}
