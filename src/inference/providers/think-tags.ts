const OPEN = "<think>";
const CLOSE = "</think>";

/**
 * Parts a text that begins with `<think>…</think>` into reasoning and answer, however it is cut. Holds back no more
 * than a tag's length; only a tag before any other text counts, since an answer may speak of tags.
 */
export class ThinkTags {
  #state: "before" | "inside" | "after" | "answer" = "before";
  #held = "";

  /** @returns what is reasoning, and what is answer */
  push(text: string): readonly [reasoning: string, answer: string] {
    if (text === "") return ["", ""];
    this.#held += text;
    let reasoning = "";
    if (this.#state === "before") {
      const begun = this.#held.trimStart();
      if (begun.length < OPEN.length && OPEN.startsWith(begun)) return ["", ""];
      this.#state = begun.startsWith(OPEN) ? "inside" : "answer";
      if (this.#state === "inside") this.#held = begun.slice(OPEN.length);
    }
    if (this.#state === "inside") {
      const end = this.#held.indexOf(CLOSE);
      const kept = end === -1 ? tagBegunIn(this.#held) : this.#held.length - end;
      reasoning = this.#held.slice(0, this.#held.length - kept);
      this.#held = end === -1 ? this.#held.slice(this.#held.length - kept) : this.#held.slice(end + CLOSE.length);
      if (end === -1) return [reasoning, ""];
      this.#state = "after";
    }
    if (this.#state === "after") {
      this.#held = this.#held.trimStart(); // the template's blank line behind the tag
      if (this.#held === "") return [reasoning, ""];
      this.#state = "answer";
    }
    const answer = this.#held;
    this.#held = "";
    return [reasoning, answer];
  }

  /** What is still held back when the text ends. */
  end(): readonly [reasoning: string, answer: string] {
    const rest = this.#held;
    this.#held = "";
    return this.#state === "inside" ? [rest, ""] : ["", rest];
  }
}

/** Characters at a text's end that may be the beginning of the closing tag. */
function tagBegunIn(text: string): number {
  for (let length = Math.min(CLOSE.length - 1, text.length); length > 0; length--)
    if (CLOSE.startsWith(text.slice(-length))) return length;
  return 0;
}
