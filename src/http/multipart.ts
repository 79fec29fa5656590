import { Busboy, type BusboyFileStream, type BusboyInstance } from "@fastify/busboy";
import { ApiError } from "../errors";

const MAX_FIELD_BYTES = 64 * 1024;
const MAX_FIELDS = 20;

export interface Uploaded {
  readonly filename: string;
  readonly content: AsyncIterable<Uint8Array>;
}

/**
 * Reads a form with one file as it comes, and no faster than the file is read: nothing of it is held but a few
 * pieces. `onFile` starts when the file does; `fields` settles with every field when the form has ended.
 * @throws ApiError 400 `invalid_form`, 415 for another type of body
 */
export async function readForm<T>(
  request: Request,
  onFile: (file: Uploaded, fields: Promise<ReadonlyMap<string, string>>) => Promise<T>,
): Promise<T> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data\s*;/i.test(type) || !request.body)
    throw new ApiError("unsupported_media_type", "Send a form as multipart/form-data.");
  const parser = parserOf(type);
  const fields = new Map<string, string>();
  const ended = Promise.withResolvers<ReadonlyMap<string, string>>();
  const result = Promise.withResolvers<T>();
  for (const { promise } of [ended, result]) void promise.catch(() => {}); // each is asked for, or its cause is
  let files = 0;
  let current: BusboyFileStream | undefined;
  const fail = (error: unknown) => {
    ended.reject(error);
    result.reject(error);
  };
  parser.on("field", (name, value, _nameTruncated, isCut) => {
    if (isCut) fail(invalidForm(`the field '${name.slice(0, 100)}' is too long`));
    fields.set(name, value);
  });
  parser.on("file", (name, stream, filename) => {
    if (name !== "file" || ++files > 1) {
      stream.resume();
      return fail(invalidForm("it has exactly one file, in the field 'file'"));
    }
    current = stream;
    const content = stream as unknown as AsyncIterable<Uint8Array>;
    onFile({ filename: filename || "file", content }, ended.promise).then(result.resolve, (error) => {
      stream.resume(); // whatever is left is thrown away, so that the sender gets to read the answer
      fail(error);
    });
  });
  parser.on("error", (error) => fail(invalidForm(String((error as Error).message).slice(0, 200))));
  parser.on("finish", () => {
    if (files === 0)
      result.reject(
        new ApiError("missing_required_parameter", "Missing required parameter: 'file'.", { param: "file" }),
      );
    ended.resolve(fields);
  });
  try {
    await feed(request.body, parser);
  } catch (error) {
    fail(error);
    current?.destroy(error as Error); // whoever reads the file learns that the rest will not come
  }
  return result.promise;
}

function parserOf(type: string): BusboyInstance {
  try {
    const limits = { fields: MAX_FIELDS, fieldSize: MAX_FIELD_BYTES, fileSize: Number.POSITIVE_INFINITY };
    return new Busboy({ headers: { "content-type": type }, limits });
  } catch (error) {
    throw invalidForm((error as Error).message);
  }
}

/** Waits for the parser to have room; an end in the middle of the form is an error of the form. */
async function feed(body: ReadableStream<Uint8Array>, parser: BusboyInstance): Promise<void> {
  for await (const chunk of body) {
    if (!parser.write(chunk)) await new Promise<void>((resolve) => parser.once("drain", resolve));
  }
  parser.end();
}

const invalidForm = (why: string) => new ApiError("invalid_form", `The form cannot be read: ${why}.`);
