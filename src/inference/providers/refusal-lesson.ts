import type { Dialect } from "../dialect";
import { fieldsOf } from "./reply-shapes";

/** What a server refused, and what it said of it. */
export interface RefusedRequest {
  readonly status: number;
  /** The beginning of the error's body. */
  readonly text: string;
  readonly sent: Readonly<Record<string, unknown>>;
  readonly dialect: Dialect;
  /** Messages of the conversation bear reasoning. */
  readonly hasReasoning: boolean;
  /** The caller named no cap of its own. */
  readonly isCapDefault: boolean;
}

export type Lesson =
  /** Ask again in this dialect. */
  | { readonly dialect: Dialect }
  /** Ask again with this cap of the output; null with none. */
  | { readonly cap: number | null }
  /** The caller asked for what the server does not know. */
  | { readonly param: string };

/** Refusals of what was asked; 500 and 501 because template errors come as such from llama.cpp and others. */
const REFUSALS: ReadonlySet<number> = new Set([400, 405, 413, 422, 500, 501]);
const NOT_TAKEN =
  /unsupported|not.{0,12}support|unknown|unrecogni[sz]ed|unexpected|not permitted|extra|forbidden|not allowed|no longer|deprecated|(does not|doesn't|do not|don't|cannot|can't|only) (accept|allow|take|support|be used|be specified|be set)|(invalid|no such|not a valid|additional) (parameter|argument|field|property|properties|request|key|input)|not implemented|not available|instead/i;
const CONTEXT = /context|prompt.{0,40}(too long|exceed)|too many tokens|`inputs` tokens \+/i;
const TOO_LARGE =
  /too large|at most|less than|greater than|exceed|maximum (value|allowed|of)|must be (between|<|in)|range/i;

/** What a refusal teaches: how to ask this server. Undefined where it is about something else. */
export function lessonOf(refused: RefusedRequest): Lesson | undefined {
  if (!REFUSALS.has(refused.status)) return undefined;
  const { text, dialect, hasReasoning } = refused;
  const named = namedIn(refused);
  const ofCap = capLesson(refused, named);
  if (ofCap) return ofCap;
  if (/reasoning_content|reasoning content|\bthinking\b.{0,80}(pass|previous|back)/i.test(text) && hasReasoning)
    return { dialect: { ...dialect, passesReasoningBack: !dialect.passesReasoningBack } };
  const ofRoles = rolesLesson(text, dialect);
  if (ofRoles) return ofRoles;
  if (named === undefined) return undefined;
  if (named === "n") return { dialect: { ...dialect, hasOneChoice: true } };
  const isNotTaken = NOT_TAKEN.test(text) || refused.status === 501;
  if (isNotTaken && isSparable(named, refused.sent[named]))
    return { dialect: { ...dialect, omit: [...dialect.omit, named] } };
  return { param: named };
}

function capLesson(refused: RefusedRequest, named: string | undefined): Lesson | undefined {
  const { text, sent, dialect, isCapDefault } = refused;
  const { outputCap } = dialect;
  if (outputCap === "none" || !(outputCap in sent)) return undefined;
  const cap = Number(sent[outputCap]);
  const isOnItsSize = CONTEXT.test(text) || /too large/i.test(text) || most(text) !== undefined;
  if (named === outputCap && NOT_TAKEN.test(text) && !isOnItsSize) {
    const other = outputCap === "max_tokens" ? "max_completion_tokens" : "max_tokens";
    const isTried = dialect.omit.includes(other);
    const omit = [...dialect.omit, outputCap];
    return { dialect: { ...dialect, omit, outputCap: isTried ? "none" : other } };
  }
  if (!isCapDefault) return undefined;
  const smaller = CONTEXT.test(text)
    ? roomIn(text, cap)
    : named === outputCap && TOO_LARGE.test(text)
      ? most(text)
      : undefined;
  if (smaller === undefined) return CONTEXT.test(text) ? { cap: null } : undefined;
  return smaller >= 1 && smaller < cap ? { cap: smaller } : undefined;
}

/** What a context leaves for the output, from the numbers of vLLM, OpenAI and those who copied their words. */
function roomIn(text: string, cap: number): number | undefined {
  const context =
    numberIn(text, /(?:context length|context window|context size|context)[^0-9]{0,40}(\d[\d,]*)/i) ??
    numberIn(text, /must be <= (\d+)/);
  const prompt =
    numberIn(text, /(\d[\d,]*) `?inputs?`? tokens/i) ??
    numberIn(text, /(\d[\d,]*)(?: tokens)? (?:in|from|for|of) (?:the |your )?(?:messages|prompt|input|text)/i) ??
    numberIn(text, /(?:prompt|messages|input)[^0-9]{0,40}?(\d[\d,]*) (?:input )?tokens/i);
  const requested = numberIn(text, /requested(?: about)? (\d[\d,]*)/i);
  if (context === undefined) return undefined;
  if (prompt !== undefined && prompt !== context) return context - prompt;
  return requested === undefined ? undefined : context - (requested - cap);
}
const most = (text: string) =>
  numberIn(
    text,
    /(?:at most|maximum(?: value| allowed)?(?: is| of)?|less than or equal to|<=|up to)[^0-9]{0,12}(\d[\d,]*)/i,
  );

function numberIn(text: string, pattern: RegExp): number | undefined {
  const digits = pattern.exec(text)?.[1]?.replaceAll(",", "");
  return digits === undefined || digits.length > 9 ? undefined : Number(digits);
}

/** Chat templates complain in their authors' words, through whatever server runs them. */
function rolesLesson(text: string, dialect: Dialect): Lesson | undefined {
  if (
    /system.{0,40}(role|message|prompt)?.{0,40}(not supported|unsupported|not allowed)/i.test(text) &&
    dialect.systemMessages !== "in_user"
  )
    return { dialect: { ...dialect, systemMessages: "in_user" } };
  const isOnSystem =
    /system.{0,60}(beginning|first|start|once|only one|single|multiple|more than one)|(only one|multiple|single).{0,20}system/i;
  if (isOnSystem.test(text)) {
    const next = dialect.systemMessages === "as_written" ? "one_first" : "in_user";
    return dialect.systemMessages === "in_user" ? undefined : { dialect: { ...dialect, systemMessages: next } };
  }
  if (!/roles? must alternate|alternat(e|ing).{0,40}(user|assistant)|consecutive (user|assistant|messages)/i.test(text))
    return undefined;
  if (!dialect.hasAlternatingRoles)
    return { dialect: { ...dialect, hasAlternatingRoles: true, systemMessages: atLeastOneFirst(dialect) } };
  return dialect.systemMessages === "in_user" ? undefined : { dialect: { ...dialect, systemMessages: "in_user" } };
}
const atLeastOneFirst = ({ systemMessages }: Dialect) =>
  systemMessages === "as_written" ? "one_first" : systemMessages;

/** Always sent, so that naming them says nothing. */
const NEVER_NAMED: ReadonlySet<string> = new Set(["model", "messages", "stream", "input"]);

/** The field of ours that the server names: in its error's `param`, in a validator's `loc`, or in its words. */
function namedIn({ text, sent }: RefusedRequest): string | undefined {
  const fields = Object.keys(sent).filter((name) => !NEVER_NAMED.has(name));
  const told = toldIn(text).find((name) => fields.includes(name));
  return told ?? fields.find((name) => isWord(name, text));
}

function toldIn(text: string): readonly string[] {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return [];
  }
  const fields = fieldsOf(body) ?? {};
  const error = fieldsOf(fields.error) ?? fields;
  const details = [fields.detail, fields.details, error.detail, error.details].flatMap((list) =>
    Array.isArray(list) ? list : [],
  );
  const places = details.flatMap((detail) => fieldsOf(detail)?.loc ?? fieldsOf(detail)?.param ?? []);
  const param = typeof error.param === "string" ? error.param.split(/[.[]/) : [];
  return [...param, ...places].filter((place): place is string => typeof place === "string");
}

/** A name that is an English word counts only in quotes, or where it is called a parameter. */
function isWord(name: string, text: string): boolean {
  if (name.includes("_")) return new RegExp(`(?<![a-z_])${name}(?![a-z_])`, "i").test(text);
  const called = "(parameter|argument|field|option|property)";
  return new RegExp(
    `['"\`]${name}['"\`]|${called}s?:? ${name}\\b|\\b${name} ${called}|\\b${name} ?(=|>|<|must be|is not)`,
    "i",
  ).test(text);
}

/** What may be left out without anybody being told less than they asked for: hints, and values that are the default. */
function isSparable(name: string, value: unknown): boolean {
  const defaults: Readonly<Record<string, readonly unknown[]>> = {
    ...{ temperature: [1], top_p: [1], frequency_penalty: [0], presence_penalty: [0], repetition_penalty: [1] },
    ...{ logprobs: [false], top_logprobs: [0], tool_choice: ["auto"], logit_bias: [] },
  };
  // One call at most is then seen to by the reader; a seed is promised to nobody.
  if (["stream_options", "parallel_tool_calls", "seed", "encoding_format"].includes(name)) return true;
  if (name === "response_format") return fieldsOf(value)?.type === "text";
  return defaults[name]?.includes(value) ?? false;
}
