import { ProviderError } from "../provider";

/** Lenient readers of what servers send: each takes any value, and gives the nearest thing that can be meant by it. */
export type Fields = Readonly<Record<string, unknown>>;

export const malformed = (what: string) => new ProviderError("broken", `the reply is malformed: ${what}`);

export const fieldsOf = (value: unknown): Fields | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;

/** A list; one object alone is a list of one. @throws ProviderError `broken` for what is neither */
export function listOf(value: unknown, name: string): readonly unknown[] {
  if (value === undefined || value === null || value === "") return [];
  if (Array.isArray(value)) return value;
  if (fieldsOf(value)) return [value];
  throw malformed(`the field ${name}`);
}

/** JSON mode answers with a value, and streams of classic models know tokens that look like numbers. */
export const textOf = (value: unknown): string =>
  typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value);

export const stringOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : typeof value === "number" ? String(value) : undefined;

/** A position in a list; some servers write it as a text. */
export function positionOf(value: unknown): number | undefined {
  const number = typeof value === "string" && /^\d{1,6}$/.test(value) ? Number(value) : value;
  return typeof number === "number" && Number.isInteger(number) && number >= 0 ? number : undefined;
}

/** What a message says, sorted by what it is. */
export interface Said {
  readonly text: string;
  readonly refusal: string;
  readonly reasoning: string;
}

/** A message's content: a text, parts with labels, or the value of JSON mode. */
export function saidIn(content: unknown): Said {
  if (!Array.isArray(content)) {
    const part = fieldsOf(content);
    const isPart = part !== undefined && typeof part.type === "string" && typeof part.text === "string";
    return isPart ? partOf(part) : { text: textOf(content), refusal: "", reasoning: "" };
  }
  const said = { text: "", refusal: "", reasoning: "" };
  for (const value of content) {
    const part =
      typeof value === "string" ? { text: value, refusal: "", reasoning: "" } : partOf(fieldsOf(value) ?? {});
    said.text += part.text;
    said.refusal += part.refusal;
    said.reasoning += part.reasoning;
  }
  return said;
}

function partOf(part: Fields): Said {
  const nothing = { text: "", refusal: "", reasoning: "" };
  const label = String(part.type ?? "text").toLowerCase();
  if (label === "refusal") return { ...nothing, refusal: textOf(part.refusal ?? part.text) };
  if (/think|reason/.test(label)) {
    const thought = part.thinking ?? part.reasoning ?? part.text ?? part.content;
    return { ...nothing, reasoning: saidIn(thought).text }; // a list of parts again at Mistral
  }
  return { ...nothing, text: textOf(part.text ?? part.content) };
}
