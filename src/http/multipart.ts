import { Buffer } from "node:buffer";
import { ApiError } from "../errors";
import { ByteWindow } from "./byte-window";

const MAX_HEADER_BYTES = 8 * 1024;
const MAX_FIELD_BYTES = 64 * 1024;
const MAX_FIELDS = 20;
/** Of what nobody wants any more this much is read and thrown away, so that its sender gets to read the answer. */
const MAX_DRAINED_BYTES = 32 * 1024 * 1024;
const LINE_END = Buffer.from("\r\n");
const HEADERS_END = Buffer.from("\r\n\r\n");

export interface Uploaded {
  readonly filename: string;
  /** Each piece is gone when the next one is asked for. */
  readonly content: AsyncIterable<Uint8Array>;
}
type Fields = ReadonlyMap<string, string>;

/**
 * Reads a form with one file (RFC 7578), and no faster than the file is read: nothing of it is held but one buffer.
 * @param onFile is called when the file begins; `fields` reads what is left of the form and gives every field
 * @throws ApiError 400 `invalid_form`, 408 `request_timeout`, 415 for another type of body
 */
export async function readForm<T>(
  request: Pick<Request, "body" | "headers">,
  onFile: (file: Uploaded, fields: () => Promise<Fields>) => Promise<T>,
): Promise<T> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data\s*;/i.test(type) || !request.body)
    throw new ApiError("unsupported_media_type", "Send a form as multipart/form-data.");
  const form = new FormReader(request.body, boundaryOf(type));
  try {
    const filename = await form.untilFile();
    if (filename === undefined)
      throw new ApiError("missing_required_parameter", "Missing required parameter: 'file'.", { param: "file" });
    const result = await onFile({ filename, content: form.content() }, () => form.fields());
    await form.fields();
    return result;
  } catch (error) {
    await form.drain(); // at once for one that stalled: it has been cancelled
    throw error;
  }
}

function boundaryOf(type: string): string {
  const [, quoted, plain] = /;\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(type) ?? [];
  const boundary = quoted ?? plain;
  if (boundary === undefined) throw invalidForm("its content type names no boundary");
  return boundary;
}

/** The parts of a form as they come, read only when they are asked for. */
class FormReader {
  readonly #window: ByteWindow;
  readonly #delimiter: Buffer;
  readonly #fields = new Map<string, string>();
  /** Before the first part, inside of one, or behind the last. */
  #at: "before" | "part" | "end" = "before";
  /** A delimiter has been read, and no header of the part behind it yet. */
  #isBetween = false;

  constructor(body: ReadableStream<Uint8Array>, boundary: string) {
    this.#delimiter = Buffer.from(`\r\n--${boundary}`);
    this.#window = new ByteWindow(body, MAX_HEADER_BYTES, LINE_END); // the first delimiter need not begin a new line
  }

  /** Reads fields up to the file. @returns its name; undefined where there is none */
  async untilFile(): Promise<string | undefined> {
    for (;;) {
      for await (const _ of this.content());
      if (this.#at === "end") return undefined;
      const { name, filename } = await this.#headers();
      if (filename === undefined) await this.#field(name);
      else if (name === "file") return filename;
      else throw onlyOneFile();
    }
  }

  /** The bytes up to the next delimiter: those of the part at which the form stands. */
  async *content(): AsyncGenerator<Uint8Array> {
    if (this.#isBetween) return;
    for (;;) {
      const at = this.#window.indexOf(this.#delimiter);
      const count = at >= 0 ? at : this.#window.size - this.#delimiter.byteLength + 1;
      if (count > 0) yield this.#window.take(count);
      if (at >= 0) break;
      if (!(await this.#window.more())) throw invalidForm("it ends in the middle of a part");
    }
    this.#window.take(this.#delimiter.byteLength);
    await this.#delimited();
  }

  /** Reads the rest of the form. */
  async fields(): Promise<Fields> {
    if ((await this.untilFile()) !== undefined) throw onlyOneFile();
    return this.#fields;
  }

  async drain(): Promise<void> {
    try {
      for (let bytes = 0; bytes < MAX_DRAINED_BYTES; bytes += this.#window.take(this.#window.size).byteLength)
        if (!(await this.#window.more())) return;
      await this.#window.cancel();
    } catch {
      // its sender has gone
    }
  }

  async #delimited(): Promise<void> {
    while (this.#window.size < 2)
      if (!(await this.#window.more())) throw invalidForm("it ends in the middle of a delimiter");
    const end = Buffer.from(this.#window.take(2)).toString("latin1");
    if (end !== "--" && end !== "\r\n") throw invalidForm("a delimiter has something behind it");
    this.#at = end === "--" ? "end" : "part";
    this.#isBetween = true;
  }

  async #headers(): Promise<{ readonly name: string; readonly filename: string | undefined }> {
    let at = this.#window.indexOf(HEADERS_END);
    for (; at < 0; at = this.#window.indexOf(HEADERS_END)) {
      if (this.#window.size > MAX_HEADER_BYTES) throw invalidForm("the headers of a part are too long");
      if (!(await this.#window.more())) throw invalidForm("it ends in the headers of a part");
    }
    const text = new TextDecoder().decode(this.#window.take(at + HEADERS_END.byteLength));
    this.#isBetween = false;
    const disposition = /^content-disposition:[ \t]*form-data[ \t]*;(.*)$/im.exec(text)?.[1];
    const name = disposition === undefined ? undefined : parameterOf(disposition, NAME);
    if (disposition === undefined || name === undefined) throw invalidForm("a part has no name");
    return { name, filename: filenameOf(disposition) };
  }

  async #field(name: string): Promise<void> {
    if (this.#fields.size >= MAX_FIELDS) throw invalidForm("it has too many fields");
    const decoder = new TextDecoder();
    let [text, size] = ["", 0];
    for await (const piece of this.content()) {
      size += piece.byteLength;
      if (size > MAX_FIELD_BYTES) throw invalidForm(`the field '${name.slice(0, 100)}' is too long`);
      text += decoder.decode(piece, { stream: true });
    }
    this.#fields.set(name, text + decoder.decode());
  }
}

/** One parameter of a header: a token, or a quoted text. A name that ends in a backslash does not escape its quote. */
const parameter = (name: string) =>
  new RegExp(
    `(?:^|;)[ \\t]*${name}[ \\t]*=[ \\t]*(?:"((?:[^"\\\\]|\\\\.)*)"(?=[ \\t]*(?:;|$))|"([^"]*)"|([^\\s";]+))`,
    "i",
  );
const NAME = parameter("name");
const FILENAME = parameter("filename");
const EXTENDED_FILENAME = parameter("filename\\*");

/**
 * As browsers write it, quotes and line ends percent-encoded (HTML, "Multipart form data"); as other clients do, quotes
 * behind backslashes or no quotes at all.
 */
function parameterOf(disposition: string, pattern: RegExp): string | undefined {
  const [, quoted, plain, token] = pattern.exec(disposition) ?? [];
  const value = quoted ?? plain ?? token;
  // A backslash alone is part of a name; where one stands before a quote, they escape.
  const unescaped = value?.includes('\\"') ? value.replaceAll(/\\(["\\])/g, "$1") : value;
  return unescaped?.replaceAll("%22", '"').replaceAll("%0D%0A", "\n");
}

/** What some clients send beside or in place of it says the name in full (RFC 5987). */
function filenameOf(disposition: string): string | undefined {
  const [, encoded] = /^utf-8'[^']*'(.+)$/i.exec(parameterOf(disposition, EXTENDED_FILENAME) ?? "") ?? [];
  try {
    if (encoded !== undefined) return decodeURIComponent(encoded);
  } catch {
    // then the plain one has to do
  }
  return parameterOf(disposition, FILENAME);
}

const onlyOneFile = () => invalidForm("it has exactly one file, in the field 'file'");
const invalidForm = (why: string) => new ApiError("invalid_form", `The form cannot be read: ${why}.`);
