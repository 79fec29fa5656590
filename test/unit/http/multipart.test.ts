import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readForm } from "../../../src/http/multipart";
import { anyCuts, pieces } from "../providers/calls";

const encoder = new TextEncoder();
const TYPE = "multipart/form-data; boundary=xyz";

function requestOf(chunks: readonly Uint8Array[], more: { readonly error?: Error; readonly onPull?: () => void } = {}) {
  const left = [...chunks];
  const body = new ReadableStream(
    {
      type: "bytes",
      pull(controller: ReadableByteStreamController) {
        more.onPull?.();
        const next = left.shift();
        if (next) controller.enqueue(next.slice());
        else if (more.error) controller.error(more.error);
        else {
          controller.close();
          controller.byobRequest?.respond(0);
        }
      },
    },
    { highWaterMark: 0 },
  );
  return { body: body as unknown as Request["body"], headers: new Headers({ "content-type": TYPE }) };
}
const part = (name: string, value: string, filename?: string) =>
  `--xyz\r\ncontent-disposition: form-data; name="${name}"${filename === undefined ? "" : `; filename="${filename}"`}\r\n\r\n${value}\r\n`;
const form = (...parts: readonly string[]) => encoder.encode(`${parts.join("")}--xyz--\r\n`);
const readAll = async (content: AsyncIterable<Uint8Array>) => {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of content) text += decoder.decode(bytes, { stream: true });
  return text + decoder.decode();
};

describe("a form with a file", () => {
  it("is read the same wherever its bytes are cut, the field before the file or after it", async () => {
    const plain = fc.string({ unit: "grapheme", maxLength: 200 }).filter((text) => !text.includes("--xyz"));
    await fc.assert(
      fc.asyncProperty(plain, plain, fc.boolean(), anyCuts, async (content, purpose, isFirst, cuts) => {
        const [field, file] = [part("purpose", purpose), part("file", content, "a.txt")];
        const bytes = isFirst ? form(field, file) : form(file, field);
        const read = await readForm(
          requestOf(pieces(bytes, cuts).filter(({ byteLength }) => byteLength > 0)),
          async (uploaded, fields) => {
            const text = await readAll(uploaded.content);
            return [uploaded.filename, text, (await fields()).get("purpose")];
          },
        );
        expect(read).toEqual(["a.txt", content, purpose]);
      }),
    );
  });

  it("is read no faster than its file is: most of it is still with its sender", async () => {
    const chunk = encoder.encode("x".repeat(64 * 1024));
    const head = encoder.encode(part("file", "", "big").slice(0, -2));
    let pulled = 0;
    const request = requestOf(
      [head, ...Array.from({ length: 1_000 }, () => chunk), encoder.encode("\r\n--xyz--\r\n")],
      {
        onPull: () => pulled++,
      },
    );
    const release = Promise.withResolvers<void>();
    const size = readForm(request, async ({ content }) => {
      await release.promise;
      let bytes = 0;
      for await (const piece of content) bytes += piece.byteLength;
      return bytes;
    });
    for (let turns = 0; turns < 200; turns++) await new Promise(setImmediate);
    expect(pulled).toBeLessThan(10); // of a thousand
    release.resolve();
    expect(await size).toBe(1_000 * chunk.byteLength);
  });

  it("that breaks off tells whoever reads the file, and its caller", async () => {
    const whole = form(part("file", "x".repeat(1_000), "a"));
    let seen: unknown;
    const reading = readForm(requestOf([whole.subarray(0, 500)], { error: new Error("gone") }), async ({ content }) => {
      try {
        await readAll(content);
      } catch (error) {
        seen = error;
        throw error;
      }
    });
    await expect(reading).rejects.toThrow("gone");
    await new Promise(setImmediate);
    expect(String(seen)).toContain("gone");
  });

  it("is refused without a file, and with two", async () => {
    const read = (bytes: Uint8Array) => readForm(requestOf([bytes]), ({ content }) => readAll(content));
    await expect(read(form(part("purpose", "x")))).rejects.toMatchObject({ code: "missing_required_parameter" });
    await expect(read(form(part("file", "a", "a"), part("file", "b", "b")))).rejects.toMatchObject({
      code: "invalid_form",
    });
    await expect(read(form(part("other", "a", "a")))).rejects.toMatchObject({ code: "invalid_form" });
  });
});

describe("the name of a file", () => {
  const named = async (disposition: string) => {
    const field = "--xyz\r\nContent-Disposition: form-data; name=purpose\r\n\r\nuser_data\r\n";
    const file = `--xyz\r\nContent-Disposition: ${disposition}\r\n\r\nhello\r\n--xyz--\r\n`;
    return readForm(requestOf([encoder.encode(field + file)]), async (uploaded, fields) => {
      expect(await readAll(uploaded.content)).toBe("hello");
      expect((await fields()).get("purpose")).toBe("user_data");
      return uploaded.filename;
    });
  };

  it.each([
    ["as browsers write it", 'form-data; name="file"; filename="say %22hi%22.txt"', 'say "hi".txt'],
    ["with quotes behind backslashes", 'form-data; name="file"; filename="say \\"hi\\".txt"', 'say "hi".txt'],
    ["with both escaped", 'form-data; name="file"; filename="a\\\\b \\"c\\".txt"', 'a\\b "c".txt'],
    ["with a backslash of its own", 'form-data; name="file"; filename="a\\b.txt"', "a\\b.txt"],
    ["that ends in a backslash", 'form-data; name="file"; filename="a\\"', "a\\"],
    ["without quotes", "form-data; name=file; filename=notes.txt", "notes.txt"],
    ["of .NET", "form-data; name=file; filename=notes.txt; filename*=utf-8''notes.txt", "notes.txt"],
    [
      "that is said in full beside",
      'form-data; name="file"; filename="=?utf-8?B?w7w=?="; filename*=UTF-8\'\'%C3%BC%20%E6%97%A5.txt',
      "ü 日.txt",
    ],
    ["said in full alone", "form-data; name=file; filename*=utf-8'en'a%3Bb.txt", "a;b.txt"],
    ["said in full, but broken", "form-data; name=file; filename=plain.txt; filename*=utf-8''%FF", "plain.txt"],
    ["with a semicolon", 'form-data; name="file"; filename="a;b.txt"', "a;b.txt"],
    ["in capitals and with spaces", 'form-data; NAME = "file" ; FILENAME = "a.txt"', "a.txt"],
    ["before its field's", 'form-data; filename="name=x.txt"; name="file"', "name=x.txt"],
    ["empty", 'form-data; name="file"; filename=""', ""],
  ])("%s is read", async (_, disposition, name) => {
    expect(await named(disposition)).toBe(name);
  });
});
