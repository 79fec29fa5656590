/** Replies of Workers AI as they are documented and seen, cut down to what matters. */

const events = (...pieces: unknown[]) =>
  [...pieces.map((piece) => (typeof piece === "string" ? piece : JSON.stringify(piece))), "[DONE]"]
    .map((data) => `data: ${data}\n\n`)
    .join("");
const usage = (prompt_tokens: number, completion_tokens: number, more: object = {}) => ({
  prompt_tokens,
  completion_tokens,
  total_tokens: prompt_tokens + completion_tokens,
  ...more,
});
/** A chunk of the newer models, padded, with the usage of itself alone. */
const chunk = (delta: object, finish_reason: string | null = null) => ({
  id: "id-1",
  object: "chat.completion.chunk",
  choices: [{ index: 0, delta, logprobs: null, finish_reason }],
  p: "abdefghijklmnop",
  usage: usage(57, 1, { neurons: 0.01 }),
});

export const CLASSIC = {
  whole: { response: "Hello there.", usage: usage(20, 3) },
  wholeStopped: { response: "Hello there.", finish_reason: "stop", usage: usage(20, 3) },
  wholeFull: { response: "Hello there.", usage: usage(20, 100) },
  wholeWithoutUsage: { response: "Hello there." },
  json: { response: { answer: 42, because: ["a"] }, usage: usage(20, 9) },
  jsonNumber: { response: 42, usage: usage(20, 9) },
  tools: {
    response: null,
    tool_calls: [
      { name: "get_weather", arguments: { city: "Oslo" } },
      { name: "get_time", arguments: '{"zone":"CET"}' },
    ],
    usage: usage(623, 20, { prompt_tokens_details: { cached_tokens: 600 } }),
  },
  stream: events(
    { response: "Hel", p: "abdef" },
    { response: "", tool_calls: [], p: "abdefghijklmnop" },
    { response: "lo ✨", p: "ab" },
    { response: 7, p: "abd" },
    { tool_calls: [], p: "abdefgh" },
    { response: "", usage: usage(20, 4) },
  ),
  /** The local stand-in names the reason with its last chunk. */
  streamWithReason: events({ response: "Hi" }, { response: "", finish_reason: "length", usage: usage(20, 1) }),
  streamOfToolPieces: events(
    { response: "", tool_calls: [] },
    { tool_calls: [{ id: "chatcmpl-tool-1", type: "function", index: 0, function: { name: "sum" } }] },
    { tool_calls: [{ index: 0, function: { arguments: '{"a": 1' } }] },
    { tool_calls: [{ index: 0, function: { arguments: ', "b": 2}' } }] },
    { tool_calls: [{ id: null, type: null, index: 0, function: { name: null, arguments: "" } }] },
    { tool_calls: [{ id: null, type: null, index: 1, function: { name: null, arguments: "" } }] },
    { response: "", usage: usage(30, 12) },
  ),
  streamOfWholeTools: events(
    { response: "", tool_calls: [{ name: "get_weather", arguments: { city: "Oslo" } }] },
    { response: "", tool_calls: [{ name: "get_time", arguments: {} }] },
    { response: "", usage: usage(30, 12) },
  ),
};

export const OPENAI_STYLE = {
  whole: {
    id: "id-1",
    object: "chat.completion",
    created: 1,
    model: "@cf/zai-org/glm-4.7-flash",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: "Hello.", reasoning_content: "they greet", refusal: null },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: usage(11, 9, { prompt_tokens_details: { cached_tokens: 4 }, neurons: 0.5 }),
  },
  tools: {
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "call-a", type: "function", function: { name: "sum", arguments: '{"a":1}' } }],
        },
        finish_reason: "tool_calls",
      },
    ],
    usage: usage(11, 9),
  },
  stream: events(
    chunk({ role: "assistant", content: "" }),
    chunk({ reasoning_content: "they" }),
    chunk({ reasoning: " greet" }),
    chunk({ content: "你" }),
    chunk({ content: "好" }),
    chunk({}, "stop"),
    { choices: [], object: "chat.completion.chunk", usage: usage(0, 0) },
    { response: "", usage: usage(57, 28, { neurons: 10.47 }) },
  ),
  streamOfTools: events(
    chunk({ tool_calls: [{ id: "tool-a", index: 0, type: "function", function: { name: "get_weather" } }] }),
    chunk({ tool_calls: [{ index: 0, function: { arguments: '{"city": "' } }] }),
    chunk({
      tool_calls: [{ id: "tool-b", index: 1, type: "function", function: { name: "get_time", arguments: "" } }],
    }),
    chunk({ tool_calls: [{ index: 0, id: "changed", function: { name: "get_weather", arguments: 'Oslo"}' } }] }),
    chunk({ tool_calls: [{ index: 1, function: { arguments: "{}" } }] }),
    chunk({}, "tool_calls"),
    { response: "", usage: usage(57, 28) },
  ),
};

/** Messages of errors, as the binding throws them. */
export const ERROR_MESSAGES: readonly (readonly [message: string, failure: string])[] = [
  ["3003: Request is missing headers or body: {what}", "broken"],
  ["3006: Request is too large", "bad_input"],
  ["3007: Request timeout", "timeout"],
  ["3008: Request was aborted", "timeout"],
  ["3021: Rate limit", "quota"],
  ["3023: Service unavailable for account", "unauthorized"],
  ["3036: You have used up your daily free allocation of 10,000 neurons.", "quota"],
  ["3039: Finetune is missing required files", "unknown_model"],
  ["3040: Capacity temporarily exceeded, please try again.", "capacity"],
  ["3041: The account is not allowed to access this model", "unauthorized"],
  ["3042: The model name is invalid", "unknown_model"],
  ["3046: Request timeout", "timeout"],
  ["5004: Invalid data type for base64 input", "bad_input"],
  ["5005: The model does not support LoRa inference", "unknown_model"],
  ["5006: Error: required properties at '/' are 'messages'", "bad_input"],
  ["5007: No such model @cf/x/y or task", "unknown_model"],
  ["5016: User has not agreed to Llama3.2 model terms", "unauthorized"],
  ["5018: The account is not allowed to access this model", "unauthorized"],
  ["5019: Request trying to use deprecated SDK version", "broken"],
  [
    "5021: The estimated number of input and maximum output tokens (8810) exceeded this model context window limit (8192)",
    "context_length",
  ],
  [
    "3010: AiError: The estimated number of input and maximum output tokens (35000) exceeded this model context window limit (24000)",
    "context_length",
  ],
  ["5035: This model needs a paid plan", "unauthorized"],
  ["10000: Authentication error", "unauthorized"],
  ["4006: the account has no neurons left today", "quota"],
  ["5021: the request is too long for this model", "context_length"],
  ["AiError: 3040: Capacity temporarily exceeded", "capacity"],
  ["you have used up your daily free allocation of 10,000 neurons", "quota"],
  ["JSON Mode couldn't be met", "bad_input"],
  ["internal error", "broken"],
  ["Network connection lost", "broken"],
  ["error code: 1031", "broken"],
  ["9999: Something new", "broken"],
];
