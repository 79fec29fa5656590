/** An error as Workers AI throws it: its message begins with the internal code (Workers AI, "Errors"). */
export class InferenceUpstreamError extends Error {
  constructor(
    readonly internalCode: number,
    description: string,
  ) {
    super(`${internalCode}: ${description}`);
    this.name = "InferenceUpstreamError";
  }
}

export const noSuchModel = (model: string) => new InferenceUpstreamError(5007, `No such model ${model} or task`);
export const badInput = (description: string) =>
  new InferenceUpstreamError(5006, `Error: oneOf at '/' not met: ${description}`);
export const noLora = () => new InferenceUpstreamError(5005, "Model does not support LoRAs");
export const noSuchFineTune = (name: string) => new InferenceUpstreamError(3042, `No such finetune ${name}`);
export const noSuchRequest = (id: string) => new InferenceUpstreamError(3042, `No such request ${id}`);
export const outOfCapacity = () => new InferenceUpstreamError(3040, "Capacity temporarily exceeded, please try again.");
export const contextExceeded = (tokens: number, context: number) =>
  new InferenceUpstreamError(
    5021,
    `The estimated number of input and maximum output tokens (${tokens}) exceeded this model context window limit (${context}).`,
  );
export const jsonNotMet = (why: string) => new InferenceUpstreamError(5024, `JSON Mode couldn't be met: ${why}`);
