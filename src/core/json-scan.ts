/** Bounds of a JSON text's form, whatever it is for: they hold before anything is built from it. */
export const MAX_JSON_DEPTH = 64;
/** Elements of one list, or keys of one object. */
export const MAX_JSON_MEMBERS = 10_000;
/** Values of all kinds in one text. */
export const MAX_JSON_VALUES = 150_000;
/** UTF-16 units of a key, as it is written. Engines hash no longer ones, and compare them instead. */
export const MAX_JSON_KEY_CHARACTERS = 4_096;

const [QUOTE, BACKSLASH, COLON, COMMA, LETTER_U] = [0x22, 0x5c, 0x3a, 0x2c, 0x75] as const;
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d] as const;

/** What is known of a text before it is parsed. */
export interface JsonOutline {
  /** Outside of strings: as many as a JSON text has keys. */
  readonly colons: number;
  /** Whether some string writes a character by its code. */
  readonly hasCodeEscapes: boolean;
}

/** Why a text is not parsed at all. */
export interface JsonProblem {
  readonly problem: "malformed" | "too_deep" | "too_much";
  /** Goes on after a name: "has more than …". */
  readonly what: string;
  /** Of the outermost object, the one that passes the bound. */
  readonly field?: string;
}

/** One pass over a text, before a parser recurses into it or builds anything of it. */
export function scanJson(text: string): JsonOutline | JsonProblem {
  const commas = new Int32Array(MAX_JSON_DEPTH + 1); // of each container that is open
  const field = { from: 0, to: 0 }; // of the body, the last one that began
  let [depth, colons, values, from, to] = [0, 0, 1, 0, 0];
  let hasCodeEscapes = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE:
        from = at;
        for (at++; at < text.length; at++) {
          const code = text.charCodeAt(at);
          if (code === QUOTE) break;
          if (code !== BACKSLASH) continue;
          at++;
          hasCodeEscapes ||= text.charCodeAt(at) === LETTER_U;
        }
        to = at + 1;
        break;
      case COLON:
        colons++;
        if (to - from > MAX_JSON_KEY_CHARACTERS + 2) return tooMuch(keyTooLong, text, field);
        if (depth === 1) [field.from, field.to] = [from, to];
        break;
      case COMMA:
        values++;
        commas[depth] = (commas[depth] as number) + 1;
        if ((commas[depth] as number) >= MAX_JSON_MEMBERS) return tooMuch(tooManyMembers, text, field);
        if (values > MAX_JSON_VALUES) return tooMuch(tooManyValues);
        break;
      case OPEN_LIST:
      case OPEN_OBJECT:
        values++;
        if (++depth > MAX_JSON_DEPTH) return TOO_DEEP;
        if (values > MAX_JSON_VALUES) return tooMuch(tooManyValues);
        commas[depth] = 0;
        break;
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        if (--depth < 0) return MALFORMED;
        break;
    }
  }
  return { colons, hasCodeEscapes };
}

const count = (value: number) => value.toLocaleString("en");
const keyTooLong = `has a key of more than ${count(MAX_JSON_KEY_CHARACTERS)} characters`;
const tooManyMembers = `has a list or an object with more than ${count(MAX_JSON_MEMBERS)} members`;
const tooManyValues = `has more than ${count(MAX_JSON_VALUES)} values in all`;

const MALFORMED: JsonProblem = { problem: "malformed", what: "is not valid JSON" };
const TOO_DEEP: JsonProblem = { problem: "too_deep", what: `is nested deeper than ${MAX_JSON_DEPTH} levels` };

function tooMuch(what: string, text = "", { from, to } = { from: 0, to: 0 }): JsonProblem {
  const field = nameAt(text, from, to);
  return { problem: "too_much", what, ...(field === undefined ? {} : { field }) };
}

function nameAt(text: string, from: number, to: number): string | undefined {
  try {
    const name: unknown = JSON.parse(text.slice(from, Math.min(to, from + MAX_JSON_KEY_CHARACTERS + 2)));
    return typeof name === "string" && name !== "" ? name.slice(0, 100).toWellFormed() : undefined;
  } catch {
    return undefined;
  }
}
