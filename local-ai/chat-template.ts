import type { Tokenizer } from "./tokenizer";

export interface TemplateMessage {
  readonly role: "system" | "developer" | "user" | "assistant";
  readonly content: string;
}

/**
 * The prompt that the model was trained on: `<|bos|>[<|system|>S<|end|>]<|user|>U<|end|>…<|assistant|>`. All
 * messages of system and developer become one, in front, because the model saw one at most. Contents are encoded as
 * plain text, so they cannot contain a role's mark.
 */
export function encodeChat(tokenizer: Tokenizer, messages: readonly TemplateMessage[]): number[] {
  const end = tokenizer.special("<|end|>");
  const turn = (role: string, content: string) => [tokenizer.special(`<|${role}|>`), ...tokenizer.encode(content), end];
  const isSystem = ({ role }: TemplateMessage) => role === "system" || role === "developer";
  const system = messages.filter(isSystem).map(({ content }) => content);
  return [
    tokenizer.special("<|bos|>"),
    ...(system.length > 0 ? turn("system", system.join("\n")) : []),
    ...messages.filter((message) => !isSystem(message)).flatMap(({ role, content }) => turn(role, content)),
    tokenizer.special("<|assistant|>"),
  ];
}
