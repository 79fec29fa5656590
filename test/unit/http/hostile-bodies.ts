/** Bodies that somebody would send who wants to cost much with little: each a shape, filled up to a size. */

export interface Shape {
  readonly name: string;
  readonly routes: readonly RouteName[];
  /** About so many characters of it; `pick` chooses, below a count. */
  readonly text: (size: number, pick: (count: number) => number) => string;
}
export type RouteName = "chat" | "responses" | "embeddings" | "moderations" | "classifications" | "update" | "lines";
const ALL: readonly RouteName[] = [
  "chat",
  "responses",
  "embeddings",
  "moderations",
  "classifications",
  "update",
  "lines",
];

/** So many of them as fit, as the text of a list. */
const listOf = (element: string, size: number): string => {
  const count = Math.max(1, Math.floor((size - 2) / (element.length + 1)));
  return `[${`${element},`.repeat(count - 1)}${element}]`;
};
/** Different elements. */
const listBy = (elementOf: (index: number) => string, size: number): string => {
  const parts: string[] = [];
  for (let [bytes, index] = [2, 0]; bytes < size; index++) {
    const element = elementOf(index);
    bytes += element.length + 1;
    parts.push(element);
  }
  return `[${parts.join(",")}]`;
};
const objectBy = (entryOf: (index: number) => string, size: number): string =>
  `{${listBy(entryOf, size).slice(1, -1)}}`;
/** A list of lists, so that none is long by itself. */
const nested = (element: string, size: number, each = 9_000): string => {
  const inner = listOf(element, Math.min(size, each * (element.length + 1)));
  return listOf(inner, size);
};
const deep = (open: string, middle: string, close: string, levels: number) =>
  open.repeat(levels) + middle + close.repeat(levels);

/** Something where something else belongs. */
const ELEMENTS = [
  ...["0", "-0", "1e308", "12345678901234567890.5", "null", "true", '""', '"a"', '"\\u0000"', '"\\ud800"', '"é"'],
  ...[
    "[]",
    "{}",
    "[[]]",
    '{"":0}',
    '{"a":{"a":{"a":[]}}}',
    '{"type":"text","text":""}',
    '{"type":"input_text","text":""}',
  ],
  ...['{"role":"user","content":""}', '{"role":"user","content":[]}', '{"role":"nobody","content":0}'],
  ...['{"role":"user","content":[{"type":"text","text":"a"}]}', '{"role":"user","content":[{"type":"text"}]}'],
  ...['{"type":"function_call","call_id":"a","name":"f","arguments":""}', '{"type":"function_call"}'],
  ...['{"type":"function_call_output","call_id":"a","output":""}', '{"type":"reasoning"}', '{"id":"msg_1"}'],
  ...['{"type":"message","role":"assistant","content":[{"type":"output_text","text":"","annotations":[]}]}'],
  ...[
    '{"type":"function","name":"f"}',
    '{"type":"function","function":{"name":"f","parameters":{}}}',
    '{"type":"web"}',
  ],
  ...[
    '{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}',
  ],
  ...[
    '{"role":"tool","tool_call_id":"a","content":"x"}',
    '{"role":"assistant","content":[{"type":"refusal","refusal":""}]}',
  ],
  ...['{"type":"image_url","image_url":{"url":"https://a/b"}}', '{"type":"input_image","image_url":"data:,"}'],
];

/** A body that is right but for one field. */
const BASES: Readonly<Record<RouteName, Readonly<Record<string, string>>>> = {
  chat: { model: '"llama-3.3-70b"', messages: '[{"role":"user","content":"hi"}]' },
  responses: { model: '"llama-3.3-70b"', input: '"hi"' },
  embeddings: { model: '"bge-m3"', input: '"hi"' },
  moderations: { input: '"hi"' },
  classifications: { model: '"llama-3.3-70b"', input: '"hi"', labels: '["a","b"]' },
  update: { metadata: "{}" },
  lines: {
    custom_id: '"a"',
    method: '"POST"',
    url: '"/v1/x"',
    body: '{"model":"m"}',
    messages: '[{"role":"assistant"}]',
  },
};
const FIELDS: Readonly<Record<RouteName, readonly string[]>> = {
  chat: [
    "messages",
    "logit_bias",
    "stop",
    "tools",
    "metadata",
    "modalities",
    "response_format",
    "tool_choice",
    "model",
    "n",
    "user",
  ],
  responses: [
    "input",
    "tools",
    "metadata",
    "include",
    "text",
    "instructions",
    "tool_choice",
    "reasoning",
    "previous_response_id",
  ],
  embeddings: ["input", "model", "user"],
  moderations: ["input", "model"],
  classifications: ["input", "labels", "instructions"],
  update: ["metadata"],
  lines: ["messages", "custom_id", "body"],
};

const bodyWith = (route: RouteName, field: string, value: string): string =>
  `{${Object.entries({ ...BASES[route], [field]: value })
    .map(([name, text]) => `${JSON.stringify(name)}:${text}`)
    .join(",")}}`;

const SCHEMAS: Readonly<Record<string, (size: number) => string>> = {
  required: (size) =>
    closed(
      "{}",
      listBy((i) => `"p${i}"`, size),
    ),
  "required, one name": (size) => closed('{"a":{"type":"string"}}', listOf('"a"', size)),
  properties: (size) => {
    const names = Math.min(9_000, Math.ceil(size / 30));
    const properties = Array.from({ length: names }, (_, i) => `"p${i}":{"type":"string"}`).join(",");
    return closed(`{${properties}}`, JSON.stringify(Array.from({ length: names }, (_, i) => `p${names - 1 - i}`)));
  },
  enum: (size) => closed(`{"a":{"type":"string","enum":${listBy((i) => `"value${i}"`, size)}}}`, '["a"]'),
  "enum of numbers": (size) => closed(`{"a":{"enum":${listOf("1", size)}}}`, '["a"]'),
  anyOf: (size) => closed(`{"a":{"anyOf":${listOf('{"type":"string"}', size)}}}`, '["a"]'),
  allOf: (size) => closed(`{"a":{"allOf":${listOf("{}", size)}}}`, '["a"]'),
  "anyOf in anyOf": (size) => closed(`{"a":${deep('{"anyOf":[', listOf('{"type":"null"}', size), "]}", 20)}}`, '["a"]'),
  patternProperties: (size) => `{"type":"object","patternProperties":${objectBy((i) => `"(a+)+${i}$":{}`, size)}}`,
  $defs: (size) => {
    const defs = objectBy((i) => `"d${i}":{"type":"array","items":{"$ref":"#/$defs/d${i + 1}"}}`, size);
    return closed('{"a":{"$ref":"#/$defs/d0"}}', '["a"]').replace("{", `{"$defs":${defs},`);
  },
  "types of types": (size) => closed(`{"a":{"type":${listOf('"string"', size)}}}`, '["a"]'),
  "a $ref that is long": (size) => closed(`{"a":{"$ref":"#/$defs/${"a".repeat(size)}"}}`, '["a"]'),
  "deep values beside it": (size) =>
    closed('{"a":{"type":"string"}}', '["a"]').replace("{", `{"default":${listOf(deep("[", "", "]", 50), size)},`),
  "deep objects beside it": (size) =>
    closed('{"a":{"type":"string"}}', '["a"]').replace("{", `{"default":${listOf(deep('{"a":', "0", "}", 50), size)},`),
  "objects in objects": (size) => {
    const inner = (levels: number): string =>
      levels === 0 ? '{"type":"string"}' : closed(`{"a":${inner(levels - 1)},"b":${inner(levels - 1)}}`, '["a","b"]');
    const wide = inner(6);
    return closed(`{${listBy((i) => `"w${i}":${wide}`, size).slice(1, -1)}}`, "[]");
  },
};
const closed = (properties: string, required: string) =>
  `{"type":"object","properties":${properties},"required":${required},"additionalProperties":false}`;

const schemaBodies: readonly Shape[] = Object.entries(SCHEMAS).flatMap(([name, schemaOf]) => {
  const shape = (where: string, route: RouteName, field: string, wrap: (schema: string) => string): Shape => ({
    name: `schema, ${name}, ${where}`,
    routes: [route],
    text: (size, pick) =>
      bodyWith(route, field, wrap(schemaOf(size)).replaceAll("STRICT", pick(4) > 0 ? "true" : "false")),
  });
  return [
    shape(
      "format",
      "chat",
      "response_format",
      (schema) => `{"type":"json_schema","json_schema":{"name":"x","strict":STRICT,"schema":${schema}}}`,
    ),
    shape(
      "tool",
      "chat",
      "tools",
      (schema) => `[{"type":"function","function":{"name":"f","strict":STRICT,"parameters":${schema}}}]`,
    ),
    shape(
      "text",
      "responses",
      "text",
      (schema) => `{"format":{"type":"json_schema","name":"x","strict":STRICT,"schema":${schema}}}`,
    ),
    shape(
      "tool",
      "responses",
      "tools",
      (schema) => `[{"type":"function","name":"f","strict":STRICT,"parameters":${schema}}]`,
    ),
  ];
});

/** Values that stand in any field of any route. */
const VALUES: Readonly<Record<string, (size: number, pick: (count: number) => number) => string>> = {
  "a list of one element, over and over": (size, pick) => listOf(ELEMENTS[pick(ELEMENTS.length)] ?? "0", size),
  "as many elements as a list may have": (size, pick) => {
    const element = ELEMENTS[pick(ELEMENTS.length)] ?? "0";
    return listOf(element, Math.min(size, 9_990 * (element.length + 1)));
  },
  "lists of lists": (size, pick) => nested(ELEMENTS[pick(ELEMENTS.length)] ?? "0", size),
  "different elements": (size, pick) => {
    const from = pick(ELEMENTS.length);
    return listBy((i) => ELEMENTS[(from + i) % ELEMENTS.length] ?? "0", size);
  },
  "good elements, and a bad one at the end": (size, pick) => {
    const element = ELEMENTS[pick(ELEMENTS.length)] ?? "0";
    return listOf(element, Math.min(size, 9_990 * (element.length + 1))).replace(/]$/, ",7]");
  },
  "messages with many parts": (size, pick) => {
    const part = ['{"type":"text","text":""}', '{"type":"input_text","text":""}', '{"type":"refusal","refusal":""}'][
      pick(3)
    ];
    const message = `{"role":"${["user", "assistant", "system"][pick(3)]}","content":${listOf(part ?? "", Math.min(size, 50_000))}}`;
    return listOf(message, size);
  },
  "messages with many parts that are wrong": (size, pick) =>
    listOf(`{"role":"user","content":${listOf(ELEMENTS[pick(ELEMENTS.length)] ?? "0", Math.min(size, 50_000))}}`, size),
  "a long string": (size, pick) =>
    `"${["a", "é", "\\n", "\\u00e9", "😀", " ", "\\\\", "/"][pick(8)]?.repeat(size / 8)}"`,
  "long strings": (size) => listOf(`"${"x".repeat(Math.min(size, 10_000))}"`, size),
  "a long number": (size, pick) => `${["1", "0.1", "-1", "1e", "0."][pick(5)]}${"7".repeat(size)}`,
  "many keys": (size) => objectBy((i) => `"k${i}":0`, size),
  "many keys that are numbers": (size, pick) => objectBy((i) => `"${i * ([1, 1_000, 999_983][pick(3)] ?? 1)}":0`, size),
  "a key over and over": (size) => objectBy(() => '"k":0', size),
  "long keys": (size) => objectBy((i) => `"${"k".repeat(4_000)}${i}":0`, size),
  "very long keys": (size) => objectBy((i) => `"${"k".repeat(20_000)}${i}":0`, size),
  "one key": (size) => `{"${"k".repeat(size)}":0}`,
  "objects of few keys": (size) => listBy((i) => `{"a${i}":1,"b${i}":2}`, size),
  "deep lists": (size) => listOf(deep("[", "", "]", 55), size),
  "deep objects": (size) => listOf(deep('{"a":', "0", "}", 55), size),
  "too deep": (size) => deep("[", "", "]", size / 2),
  spaces: (size) => `[${" ".repeat(size)}]`,
  "not JSON": (size) => listOf("0", size).replace(/]$/, ",]"),
  commas: (size) => `[${",".repeat(size)}]`,
  colons: (size) => `{${":".repeat(size)}}`,
  quotes: (size) => '"'.repeat(size),
};

const fieldBodies: readonly Shape[] = ALL.flatMap((route) =>
  Object.entries(VALUES).map(([name, textOf]) => ({
    name: `${name}, ${route}`,
    routes: [route],
    text: (size: number, pick: (count: number) => number) => {
      const fields = FIELDS[route];
      return bodyWith(route, fields[pick(fields.length)] ?? "", textOf(size, pick));
    },
  })),
);
const wholeBodies: readonly Shape[] = Object.entries(VALUES).map(([name, textOf]) => ({
  name: `${name}, for a body`,
  routes: ALL,
  text: textOf,
}));
const unknownFields: Shape = {
  name: "fields that nobody knows",
  routes: ALL,
  text: (size) => objectBy((i) => `"field_${i}":[]`, size),
};

export const SHAPES: readonly Shape[] = [...schemaBodies, ...fieldBodies, ...wholeBodies, unknownFields];
