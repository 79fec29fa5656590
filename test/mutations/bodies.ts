import type { Mutation } from "./mutation";

const BODY = "test/unit/http/json-body.test.ts";
const BOUNDS = "test/unit/http/bounds.test.ts";
const WORK = "test/unit/http/work-per-byte.test.ts";
const UNKNOWN = "test/worker/unknown-keys.test.ts";
const STRICT = "test/unit/core/strict-schema.test.ts";
const GRAMMAR = "test/local-ai/json-constraint.test.ts";
const TOKENIZER = "test/local-ai/tokenizer.test.ts";
const INPUTS = "test/local-ai/inputs.test.ts";
const LINES = "test/unit/files/json-lines.test.ts";
const SSE = "test/unit/providers/sse.test.ts";
const REPLY = "test/unit/providers/reply-reader.test.ts";

export const mutations: readonly Mutation[] = [
  // Who calls, before the body.
  {
    promise: "the body of a key that nobody has vouched for is not read where it is large",
    file: "src/http/model-call.ts",
    find: "return announced !== null && Number(announced) <= MAX_EARLY_BYTES;",
    replace: "return true;",
    tests: [UNKNOWN],
  },
  {
    promise: "a body whose size nobody tells is large",
    file: "src/http/model-call.ts",
    find: "return announced !== null && Number(announced) <= MAX_EARLY_BYTES;",
    replace: "return Number(announced) <= MAX_EARLY_BYTES;",
    tests: [UNKNOWN],
  },
  {
    promise: "a body is read no further than it was announced",
    file: "src/http/json-body.ts",
    find: "if (isTooLarge ? size <= MAX_DRAINED_BYTES : !(size > announced)) continue;",
    replace: "if (!isTooLarge || size <= MAX_DRAINED_BYTES) continue;",
    tests: [BODY, UNKNOWN],
  },
  // The form of a body.
  {
    promise: "a list of a body has at most 10,000 members",
    file: "src/core/json-scan.ts",
    find: "if ((commas[depth] as number) >= MAX_JSON_MEMBERS)",
    replace: "if ((commas[depth] as number) > 100 * MAX_JSON_MEMBERS)",
    tests: [BODY, WORK],
  },
  {
    promise: "each list of a body is counted by itself",
    file: "src/core/json-scan.ts",
    find: "        commas[depth] = 0;\n",
    replace: "",
    tests: [BODY],
  },
  {
    promise: "a body has at most 150,000 values in all",
    file: "src/core/json-scan.ts",
    find: "if (values > MAX_JSON_VALUES) return tooMuch(tooManyValues);\n        break;\n      case OPEN_LIST:",
    replace: "break;\n      case OPEN_LIST:",
    tests: [BODY],
  },
  {
    promise: "lists within lists count as values of a body",
    file: "src/core/json-scan.ts",
    find: "        values++;\n        if (++depth",
    replace: "        if (++depth",
    tests: [BODY],
  },
  {
    promise: "a key has at most 4,096 characters",
    file: "src/core/json-scan.ts",
    find: "if (to - from > MAX_JSON_KEY_CHARACTERS + 2) return tooMuch(keyTooLong, text, field);",
    replace: "",
    tests: [BODY],
  },
  {
    promise: "a body is nested at most 64 levels",
    file: "src/core/json-scan.ts",
    find: "if (++depth > MAX_JSON_DEPTH) return TOO_DEEP;",
    replace: "if (++depth > 1_000) return TOO_DEEP;",
    tests: [BODY],
  },
  {
    promise: "a quote behind a backslash does not end a string, whatever was escaped before",
    file: "src/core/json-scan.ts",
    find: "          at++;\n          hasCodeEscapes ||= text.charCodeAt(at) === LETTER_U;",
    replace: "          hasCodeEscapes ||= text.charCodeAt(++at) === LETTER_U;",
    tests: [BODY],
  },
  {
    promise: "what passes a bound of the form is named",
    file: "src/core/json-scan.ts",
    find: "if (depth === 1) [field.from, field.to] = [from, to];",
    replace: "[field.from, field.to] = [from, to];",
    tests: [BODY],
  },
  {
    promise: "an object has no key twice",
    file: "src/http/json-body.ts",
    find: "if (keysIn(value) !== outline.colons)",
    replace: "if (keysIn(value) > outline.colons)",
    tests: [BODY],
  },
  {
    promise: "no text of a body has NUL or half of a surrogate pair, in keys too",
    file: "src/http/json-body.ts",
    find: "      assertText(key);\n",
    replace: "",
    tests: [BODY],
  },
  {
    promise: "no body names __proto__",
    file: "src/http/json-body.ts",
    find: 'if (key === "__proto__") throw',
    replace: 'if (key === "prototype") throw',
    tests: [BODY],
  },
  {
    promise: "a body is copied a few times, however many pieces it comes in, and whole",
    file: "src/http/json-body.ts",
    find: "larger.set(bytes);",
    replace: "larger.set(bytes.subarray(1));",
    tests: [BODY],
  },
  // A body that stalls.
  {
    promise: "a body that stalls is closed after 30 s",
    file: "src/http/body-flow.ts",
    find: "export const BODY_PATIENCE_MS = 30_000;",
    replace: "export const BODY_PATIENCE_MS = 30_000_000;",
    tests: [BODY],
  },
  {
    promise: "a body that only trickles is closed too",
    file: "src/http/body-flow.ts",
    find: "this.#leftMs - (Date.now() - sinceMs) + earnedMs",
    replace: "this.patienceMs",
    tests: [BODY],
  },
  {
    promise: "a body that keeps its pace is read, however long it takes",
    file: "src/http/body-flow.ts",
    find: "(Date.now() - sinceMs) + earnedMs",
    replace: "(Date.now() - sinceMs)",
    tests: [BODY],
  },
  {
    promise: "a body that stalls is cancelled",
    file: "src/http/body-flow.ts",
    find: "      cancel(error).catch(() => {}); // its sender",
    replace: "      // its sender",
    tests: [BODY],
  },
  {
    promise: "a reader that takes its time with a body does not make it stall",
    file: "src/http/body-flow.ts",
    find: "const sinceMs = Date.now();",
    replace:
      "const me = this as { before?: number };\n    const sinceMs = me.before ?? Date.now();\n    me.before = Date.now();",
    tests: [BODY],
  },
  {
    promise: "a form that stalls is closed too",
    file: "src/http/byte-window.ts",
    find: "await this.#flow.next(\n      () => this.#reader.read(new Uint8Array(this.#read, 0, room)),\n      () => this.cancel(),\n    );",
    replace: "await this.#reader.read(new Uint8Array(this.#read, 0, room));",
    tests: [BODY],
  },
  // Parameters.
  {
    promise: "the length of a list is looked at before its elements",
    file: "src/http/bounded.ts",
    find: 'if (Array.isArray(input)) refuseSize(input, input.length, { min, max }, "elements", context);',
    replace: "",
    tests: [BOUNDS],
  },
  {
    promise: "the entries of a map are counted before any of them is looked at",
    file: "src/http/bounded.ts",
    find: "if (size >= min && size <= max) return;",
    replace: 'if (size >= min && (size <= max || what === "entries")) return;',
    tests: [BOUNDS],
  },
  {
    promise: "items and tools are counted before any of them is looked at",
    file: "src/http/bounded.ts",
    find: "    if (input.length > max) {",
    replace: "    if (input.length > 100 * max) {",
    tests: [BOUNDS],
  },
  {
    promise: "a list full of mistakes is read up to the first of them",
    file: "src/first-issue.ts",
    find: "abortEarly: true",
    replace: "abortEarly: false",
    tests: [BOUNDS],
  },
  {
    promise: "items full of mistakes are read up to the first of them",
    file: "src/http/bounded.ts",
    find: "as (typeof context.issues)[number]);\n      return z.NEVER;",
    replace: "as (typeof context.issues)[number]);",
    tests: [BOUNDS],
  },
  {
    promise: "a list that is too long is told as too long, whatever else it might have been",
    file: "src/http/parse.ts",
    find: "  if (tooMuch) return { ...tooMuch, path: [...issue.path, ...tooMuch.path] };\n",
    replace: "",
    tests: [BOUNDS],
  },
  {
    promise: "an error tells a name at no great length",
    file: "src/http/parse.ts",
    find: "name.length <= MAX_NAME_CHARACTERS ? name",
    replace: "name.length <= 100_000 ? name",
    tests: [BOUNDS],
  },
  {
    promise: "calls that follow each other are added to their message, not copied with it",
    file: "src/http/response-items.ts",
    find: "if (last.tool_calls) last.tool_calls.push(call);",
    replace: "else if (last.tool_calls) last.tool_calls.unshift(call);",
    tests: [BOUNDS],
  },
  {
    promise: "the schema of a reply is bounded, strict or not",
    file: "src/http/strict-schema.ts",
    find: "JSON.stringify(schema).length > MAX_SCHEMA_CHARACTERS",
    replace: "strict && JSON.stringify(schema).length > MAX_SCHEMA_CHARACTERS",
    tests: [BOUNDS],
  },
  {
    promise: "a strict schema lists at most 5,000 required names",
    file: "src/core/strict-schema.ts",
    find: "if (required.length > MAX_PROPERTIES)",
    replace: "if (required.length > 1_000_000)",
    tests: [STRICT],
  },
  {
    promise: "a strict schema has at most 120,000 characters of names and values",
    file: "src/core/strict-schema.ts",
    find: "return counts.characters > MAX_CHARACTERS",
    replace: "return counts.characters > 100 * MAX_CHARACTERS",
    tests: [STRICT],
  },
  // The embedded model.
  {
    promise: "values of an enum that begin alike are followed as one",
    file: "local-ai/json-frames.ts",
    find: "return open.length === 0 ? done : [...done, [ways(base, open, depth + 1)]];",
    replace: "return [...done, ...open.map((way) => [ways(base, [way], depth + 1)])];",
    tests: [GRAMMAR],
  },
  {
    promise: "of numbers one may begin another",
    file: "local-ai/json-frames.ts",
    find: "return open.length === 0 ? done : [...done, [ways(base, open, depth + 1)]];",
    replace: "return open.length === 0 ? done : [[ways(base, open, depth + 1)]];",
    tests: [GRAMMAR],
  },
  {
    promise: "a property that is required is not passed over",
    file: "local-ai/json-frames.ts",
    find: "at <= Math.min(required, count - 1)",
    replace: "at <= count - 1",
    tests: [GRAMMAR],
  },
  {
    promise: "a state of a grammar is found out once",
    file: "local-ai/json-constraint.ts",
    find: "    if (known !== undefined) return known;\n    this.steps",
    replace: "    this.steps",
    tests: [GRAMMAR],
  },
  {
    promise: "states with equal names are one",
    file: "local-ai/json-constraint.ts",
    find: "    if (known) return known;\n    if (this.#byName.size",
    replace: "    if (this.#byName.size",
    tests: [GRAMMAR],
  },
  {
    promise: "possibilities that begin alike are bounded",
    file: "local-ai/json-grammar.ts",
    find: "if (made.width > MAX_WIDTH)",
    replace: "if (made.width > 100 * MAX_WIDTH)",
    tests: [GRAMMAR],
  },
  {
    promise: "possibilities within each other are bounded together",
    file: "local-ai/json-frames.ts",
    find: "const width = properties.reduce((most, { value }) => Math.max(most, value.width), 1);",
    replace: "const width = 1;",
    tests: [GRAMMAR],
  },
  {
    promise: "an enum that is referred to often is read once",
    file: "local-ai/json-grammar.ts",
    find: "this.#enums.set(list, known);",
    replace: "",
    tests: [GRAMMAR],
  },
  {
    promise: "a long piece of text is encoded as a short one is, at a cost in proportion",
    file: "local-ai/tokenizer.ts",
    find: "if (merge?.rank !== Math.floor(least / PLACES)) continue;",
    replace: "if (merge === undefined) continue;",
    tests: [TOKENIZER],
  },
  {
    promise: "lists for the embedded model are counted before they are read",
    file: "local-ai/inputs.ts",
    find: "if (Array.isArray(list) && list.length > most) throw",
    replace: "if (Array.isArray(list) && list.length > 1_000 * most) throw",
    tests: [INPUTS],
  },
  // Files, and what providers answer.
  {
    promise: "a line of a file has the bounds of a body",
    file: "src/files/json-lines.ts",
    find: '    if ("problem" in outline) {',
    replace: '    if ("problem" in outline && outline.problem === "malformed") {',
    tests: [LINES],
  },
  {
    promise: "a line that comes in pieces is checked whole",
    file: "src/files/json-lines.ts",
    find: 'this.#check(this.#rest.join("") + text.slice(from, to));',
    replace: "this.#check(text.slice(from, to));",
    tests: [LINES],
  },
  {
    promise: "a line of a file that does not end is given up at its bound",
    file: "src/files/json-lines.ts",
    find: "this.#restCharacters += text.length - from;",
    replace: "this.#restCharacters = text.length - from;",
    tests: [LINES],
  },
  {
    promise: "a line of a provider's stream that does not end is given up at its bound",
    file: "src/inference/providers/sse.ts",
    find: "this.#pending += text.length - start;",
    replace: "this.#pending = text.length - start;",
    tests: [SSE],
  },
  {
    promise: "a line feed behind a carriage return of another chunk is no line",
    file: "src/inference/providers/sse.ts",
    find: 'this.#endedInCr && text.startsWith("\\n") ? 1 : 0',
    replace: "0",
    tests: [SSE],
  },
  {
    promise: "a reply calls at most 512 functions",
    file: "src/inference/providers/tool-call-reader.ts",
    find: "if (this.#calls.length >= MAX_CALLS)",
    replace: "if (this.#calls.length >= 1_000 * MAX_CALLS)",
    tests: [REPLY],
  },
];
