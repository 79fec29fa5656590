/** Watches a JSON object as it is written, piece by piece, without keeping it. */
export class JsonEnd {
  #depth = 0;
  #isInText = false;
  #isEscaped = false;
  #hasBegun = false;

  get hasBegun(): boolean {
    return this.#hasBegun;
  }
  /** Whether everything that was opened is closed again. */
  get isWhole(): boolean {
    return this.#hasBegun && this.#depth === 0 && !this.#isInText;
  }

  push(text: string): void {
    for (const character of text) {
      if (this.#isEscaped) this.#isEscaped = false;
      else if (this.#isInText) {
        if (character === "\\") this.#isEscaped = true;
        else if (character === '"') this.#isInText = false;
      } else if (character === '"') this.#isInText = true;
      else if (character === "{" || character === "[") this.#depth++;
      else if (character === "}" || character === "]") this.#depth--;
      if (character.trim() !== "") this.#hasBegun = true;
    }
  }
}
