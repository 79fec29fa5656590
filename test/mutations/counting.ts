import type { Mutation } from "./mutation";

const METER = ["test/unit/pipeline/meter.test.ts"];
const TOKENS = ["test/unit/core/token-bound.test.ts"];
const PROMPTS = ["test/unit/pipeline/prompt-bound.test.ts"];
const RUNNING = ["test/unit/core/running-count.test.ts"];
const AMOUNTS = ["test/unit/gate/small-amounts.test.ts"];
const ODD = ["test/e2e/odd-texts.test.ts"];
const ERRORS = ["test/unit/data/database-errors.test.ts"];

const meter = (promise: string, find: string, replace: string): Mutation => ({
  ...{ promise, file: "src/pipeline/meter.ts", find, replace, tests: METER },
});
const encoding = (promise: string, find: string, replace: string): Mutation => ({
  ...{ promise, file: "src/core/tokens/encoding.ts", find, replace, tests: TOKENS },
});
const pairs = (promise: string, find: string, replace: string): Mutation => ({
  ...{ promise, file: "src/core/tokens/byte-pairs.ts", find, replace, tests: TOKENS },
});
const prompt = (promise: string, find: string, replace: string): Mutation => ({
  ...{ promise, file: "src/pipeline/prompt-bound.ts", find, replace, tests: PROMPTS },
});
const running = (promise: string, find: string, replace: string): Mutation => ({
  ...{ promise, file: "src/core/tokens/running-count.ts", find, replace, tests: RUNNING },
});

/** How prompts and outputs are counted, what is billed of them, and texts that are odd. */
export const mutations: readonly Mutation[] = [
  meter("a model that ignores its cap is cut", "return tokens > most;", "return tokens > most * 2;"),
  meter("a model that ignores its cap is cut", "return tokens > most;", "return false;"),
  meter("a stream is never cut at its bytes", "return tokens > most;", "return true;"),
  meter("a model that keeps its cap is not cut", "const CUT_SLACK_TOKENS = 4;", "const CUT_SLACK_TOKENS = -4;"),
  meter("a whole reply is not cut", "call.request.stream && seen.isBeyondCap", "seen.isBeyondCap"),
  meter(
    "a model whose choices are all cut is stopped",
    'if (cut.size === choicesOf(call.request)) return call.stop("cap");',
    "",
  ),
  meter("nothing more is shown of a choice that was cut", "if (cut.has(delta.choice)) continue;", ""),
  meter(
    "an estimate of a choice is not above its cap",
    "tokens += Math.min(count.tokens, cap);",
    "tokens += count.tokens;",
  ),
  meter(
    "a provider's count of what was cached is billed",
    "const counted = { promptTokens, cachedTokens, completionTokens, estimated: false };",
    "const counted = { promptTokens, cachedTokens: 0, completionTokens, estimated: false };",
  ),
  meter(
    "a provider's count is no estimate",
    "completionTokens, estimated: false };",
    "completionTokens, estimated: true };",
  ),
  meter("a count that cannot be true is flagged", "call.usageRejected = true;", ""),
  meter("a prompt of no tokens is no count", "if (promptTokens === 0) return false;", ""),
  meter("less than what has come is not believed", "const BELIEVED_SHARE = 0.5;", "const BELIEVED_SHARE = 0.3;"),
  meter("another tokenizer's count is believed", "const BELIEVED_SHARE = 0.5;", "const BELIEVED_SHARE = 0.9;"),
  meter(
    "less than what has come of a long text is not believed",
    "const BYTES_PER_BELIEVED_TOKEN = 6;",
    "const BYTES_PER_BELIEVED_TOKEN = 12;",
  ),
  meter("a count that is not believed is flagged at the end", "    seen.judgeReport();\n", ""),
  meter("the last count of several is taken", "seen.reported = delta;", "seen.reported ??= delta;"),
  meter("calls of tools are counted", '`${delta.name ?? ""}${delta.arguments}`', '""'),
  meter("nothing is billed before anything has come", "if (!this.hasBegun) return NOTHING;", ""),
  {
    promise: "no more is billed of a prompt than was reserved",
    file: "src/pipeline/model-call.ts",
    find: "promptTokens: Math.min(usage.promptTokens, promptTokens),",
    replace: "promptTokens: usage.promptTokens,",
    tests: METER,
  },
  {
    promise: "no more is billed of an output than was reserved",
    file: "src/pipeline/model-call.ts",
    find: "completionTokens: Math.min(usage.completionTokens, outputTokens * choicesOf(this.request)),",
    replace: "completionTokens: usage.completionTokens,",
    tests: METER,
  },

  encoding("texts are cut as their encoding says", "\\\\p{N}{1,3}", "\\\\p{N}{1,2}"),
  encoding("texts are cut as their encoding says", "[lL][lL]", "[lL]"),
  encoding("the count stops beyond what was asked for", " && tokens <= enough; ) {", "; ) {"),
  encoding("the count is whole below what was asked for", "tokens <= enough; )", "tokens < enough; )"),
  encoding(
    "a piece that was merged is remembered as it was counted",
    "remembered.set(word, count);",
    "remembered.set(word, 1);",
  ),
  encoding("rare words beyond the bound of work count as bytes", "if (known === undefined) toMerge -= size;", ""),
  encoding("characters of four bytes are four", "piece[size++] = 0xf0 | (code >> 18);\n", ""),
  pairs("the lowest rank merges first", "(heap[parent] ?? 0) > entry", "(heap[parent] ?? 0) < entry"),
  pairs("a pair that is gone does not merge", "if (this.#ranks[start] !== entry >>> PLACE_BITS) continue;", ""),
  pairs("what came before a merge is rated anew", "if (before >= 0) this.#rate(piece, before, size);", ""),
  {
    promise: "a token is found by all of its bytes",
    file: "src/core/tokens/vocabulary.ts",
    find: "if (length !== end - start) return false;",
    replace: "",
    tests: TOKENS,
  },
  {
    promise: "a tokenizer that nobody named is bounded by the larger count and a margin",
    file: "src/core/tokens/tokenizers.ts",
    find: "const most = Math.max(older.bound(text, enough), newer.bound(text, enough));",
    replace: "const most = newer.bound(text, enough) / UNNAMED_MARGIN;",
    tests: PROMPTS,
  },
  {
    promise: "Llama 3 has tokens of its own",
    file: "src/core/tokens/tokenizers.ts",
    find: "llama3: [cl100k, llama3Extension]",
    replace: "llama3: [cl100k]",
    tests: PROMPTS,
  },

  prompt("an image counts by its detail", 'part.image_url.detail === "low" ? "low" : "high"', '"low"'),
  prompt("an image counts at all", "moreTokens: templates + images", "moreTokens: templates"),
  prompt("tools count", "const others = [...tools, ", "const others = ["),
  prompt(
    "names and calls of a message count",
    "return Object.keys(rest).length === 0 ? texts : [...texts, ",
    "return Object.keys(rest).length >= 0 ? texts : [...texts, ",
  ),
  prompt("what is read with each input counts each time", "sum + bytesOf(text) * times", "sum + bytesOf(text)"),
  prompt(
    "labels that are weighed count once for each input",
    "inputs.length * (guess(instructions) + sum(labels))",
    "guess(instructions) + sum(labels)",
  ),
  prompt("counting stops beyond what there is room for", "enough - tokens", "Infinity"),

  running(
    "what was counted stays counted",
    "this.#counted += this.count(text.slice(0, seam));",
    "this.#counted = this.count(text.slice(0, seam));",
  ),
  running("a text is parted in front of a space", "text.slice(seam);", "text.slice(seam + 1);"),
  running(
    "each part is counted about once",
    "this.#uncounted = text.slice(seam);",
    'this.#uncounted = text.slice(seam) + (text.length < 0 ? text : ""); this.count(text);',
  ),

  {
    promise: "what a call costs below a micro-dollar is carried",
    file: "src/core/remainders.ts",
    find: "rest: total % PICO_PER_MICRO",
    replace: "rest: 0",
    tests: AMOUNTS,
  },
  {
    promise: "what was carried is booked with the next call",
    file: "src/core/remainders.ts",
    find: "const total = picodollars + restBefore;",
    replace: "const total = picodollars;",
    tests: AMOUNTS,
  },
  {
    promise: "what is carried outlives a restart",
    file: "durable-objects/usage-hours.ts",
    find: "return newest ? { price: newest.price, cost: newest.cost } : NO_REMAINDER;",
    replace: "return newest ? NO_REMAINDER : NO_REMAINDER;",
    tests: AMOUNTS,
  },
  {
    promise: "what is carried belongs to its model",
    file: "durable-objects/usage-hours.ts",
    find: "this.#remainders.set(model, remainder);",
    replace: "for (const name of this.#remainders.keys()) this.#remainders.set(name, remainder);",
    tests: AMOUNTS,
  },

  {
    promise: "a parameter that is named like a part of an object is an unknown one",
    file: "src/http/parse.ts",
    find: "const values: Record<string, unknown> = Object.create(null);",
    replace: "const values: Record<string, unknown> = {};",
    tests: ODD,
  },
  {
    promise: "a path with a NUL is an unknown one",
    file: "src/app.ts",
    find: "if (/%00|\\0/.test(new URL(c.req.url).pathname)) throw",
    replace: "if (c.req.url === undefined) throw",
    tests: ODD,
  },
  {
    promise: "a label is found by exactly its value",
    file: "src/data/dialect.ts",
    find: "from jsonb_each_text(${column}) as own where own.key = wanted.key and own.value = wanted.value))`,",
    replace: "from jsonb_each_text(${column}) as own where own.key = wanted.key))`,",
    tests: ODD,
  },
  {
    promise: "an error of a database names no value",
    file: "src/data/database-errors.ts",
    find: "throw error instanceof DrizzleQueryError ? error.cause : error;",
    replace: "throw error;",
    tests: ERRORS,
  },
  {
    promise: "an error of Postgres names no value",
    file: "src/data/database-errors.ts",
    find: "if (error instanceof postgres.PostgresError) {",
    replace: "if (error instanceof RangeError && error instanceof postgres.PostgresError) {",
    tests: ERRORS,
  },
  {
    promise: "a text with a NUL reaches no database",
    file: "src/data/database-errors.ts",
    find: 'typeof value === "string" && value.includes("\\0")',
    replace: 'typeof value === "string" && value === "\\0"',
    tests: ERRORS,
  },

  {
    promise: "a name with quotes behind backslashes is read whole",
    file: "src/http/multipart.ts",
    find: "const value = quoted ?? plain ?? token;",
    replace: "const value = plain ?? token;",
    tests: ["test/unit/http/multipart.test.ts"],
  },
  {
    promise: "a name without quotes is read",
    file: "src/http/multipart.ts",
    find: "const value = quoted ?? plain ?? token;",
    replace: "const value = quoted ?? plain;",
    tests: ["test/unit/http/multipart.test.ts"],
  },
  {
    promise: "definitions of older drafts are looked at",
    file: "src/core/strict-schema.ts",
    find: 'const DEFINITIONS = ["$defs", "definitions"] as const;',
    replace: 'const DEFINITIONS = ["$defs"] as const;',
    tests: ["test/unit/core/strict-schema.test.ts"],
  },
  {
    promise: "a file's length is told with it",
    file: "src/http/files.ts",
    find: ".pipeThrough(new FixedLengthStream(bytes));",
    replace: ";",
    tests: ["test/e2e/files.test.ts"],
  },
  {
    promise: "HEAD knows no ranges",
    file: "src/http/files.ts",
    find: "const range = isHead ? null : rangeOf(",
    replace: "const range = rangeOf(",
    tests: ["test/e2e/files.test.ts"],
  },
  {
    promise: "nobody pays for more than was reserved",
    file: "src/core/records.ts",
    find: "completionTokens: Math.min(end.completionTokens, facts.reservedOutputTokens),",
    replace: "completionTokens: end.completionTokens,",
    tests: AMOUNTS,
  },
  {
    promise: "what a provider counts is booked",
    file: "src/core/records.ts",
    find: "const { promptTokens, completionTokens } = end;",
    replace: "const { promptTokens, completionTokens } = paid;",
    tests: AMOUNTS,
  },
  {
    promise: "headers of a stream do not wait for its first output",
    file: "src/http/event-stream.ts",
    find: "const opening = isFirst ? setTimeout(ping, 0) : undefined;",
    replace: "const opening = undefined;",
    tests: ["test/unit/http/event-stream.test.ts"],
  },
  {
    promise: "token ids are the text that they were made of",
    file: "src/core/tokens/vocabulary.ts",
    find: "this.#offsets[rank + 1])));",
    replace: "this.#offsets[rank + 1]))).slice(1);",
    tests: PROMPTS,
  },
];
