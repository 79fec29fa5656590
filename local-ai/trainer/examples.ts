import { z } from "zod";
import { encodeChat } from "../chat-template";
import { turn } from "../event-loop";
import type { Tokenizer } from "../tokenizer";
import type { Example } from "./machine";

/** What is wrong with training data, in a sentence for whoever uploaded it; lines count from 1. */
export class ExampleError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ExampleError";
  }
}

/** A line of a fine-tuning file in OpenAI's chat format; other roles than these the model does not know. */
const Line = z.object({
  messages: z
    .array(
      z.discriminatedUnion("role", [
        z.object({ role: z.literal(["system", "developer", "user"]), content: z.string() }),
        z.object({ role: z.literal("assistant"), content: z.string(), weight: z.literal([0, 1]).optional() }),
      ]),
    )
    .min(1),
});
type Message = z.output<typeof Line>["messages"][number];

/** A longer one cannot fit the model's context, however its characters are escaped. */
const MAX_LINE_CHARACTERS = 64 * 1024;
/** Characters between two turns of the event loop: a few milliseconds of encoding. */
const CHARACTERS_PER_TURN = 16 * 1024;

/**
 * Reads JSON Lines of `{"messages": [...]}`; empty lines are skipped. Others get their turn in between.
 * @param contextTokens the longest that an example may be
 * @throws ExampleError
 */
export async function parseExamples(jsonl: string, tokenizer: Tokenizer, contextTokens: number): Promise<Example[]> {
  const examples: Example[] = [];
  let characters = 0;
  for (const [index, text] of jsonl.split("\n").entries()) {
    if (text.trim() === "") continue;
    examples.push(parseExample(text, index + 1, tokenizer, contextTokens));
    characters += text.length;
    if (characters < CHARACTERS_PER_TURN) continue;
    characters = 0;
    await turn();
  }
  if (examples.length === 0) throw new ExampleError("the file has no examples");
  return examples;
}

function parseExample(text: string, line: number, tokenizer: Tokenizer, contextTokens: number): Example {
  if (text.length > MAX_LINE_CHARACTERS)
    throw new ExampleError(`line ${line}: longer than ${MAX_LINE_CHARACTERS} characters`);
  const example = exampleOf(tokenizer, parseLine(text, line));
  if (example.targets.every((target) => target < 0))
    throw new ExampleError(`line ${line}: no message of the assistant to learn from`);
  if (example.tokens.length > contextTokens)
    throw new ExampleError(
      `line ${line}: ${example.tokens.length} tokens, and the model reads ${contextTokens} at most`,
    );
  return example;
}

/** Tokens of a conversation; what is learned are the assistant's words and their ends, unless they weigh 0. */
export function exampleOf(tokenizer: Tokenizer, messages: readonly Message[]): Example {
  const isSystem = ({ role }: Message) => role === "system" || role === "developer";
  const system = messages.filter(isSystem);
  const turns = messages.filter((message) => !isSystem(message));
  const tokens = encodeChat(tokenizer, messages).slice(0, -1); // without the opening of a turn that is still to come
  const targets = tokens.map(() => -1);
  for (const [index, message] of turns.entries()) {
    if (message.role !== "assistant" || message.weight === 0) continue;
    const from = encodeChat(tokenizer, [...system, ...turns.slice(0, index)]).length;
    const to = from + tokenizer.encode(message.content).length;
    for (let at = from; at <= to; at++) targets[at - 1] = tokens[at] as number;
  }
  return { tokens, targets };
}

function parseLine(text: string, line: number): readonly Message[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ExampleError(`line ${line}: not JSON`);
  }
  const parsed = Line.safeParse(value);
  if (parsed.success) return parsed.data.messages;
  const [issue] = parsed.error.issues;
  throw new ExampleError(`line ${line}: '${issue?.path.join(".") ?? ""}' ${issue?.message ?? "is wrong"}`);
}
