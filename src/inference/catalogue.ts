import { z } from "zod";
import { TOKENIZERS } from "../core/tokens/tokenizers";
import { DeclaredDialect } from "./dialect";

/**
 * The model catalogue: which public model names exist, and what runs behind each. Versioned configuration; tenants
 * see public names only, provider ids never leave the platform.
 */
export const CAPABILITIES = [
  "tools",
  "json_object",
  "json_schema",
  "seed",
  "stop",
  "top_k",
  "penalties",
  "logit_bias",
  "logprobs",
  "reasoning",
  "vision",
  "lora",
  "batch",
] as const;
export type Capability = (typeof CAPABILITIES)[number];

const Common = {
  /**
   * Public name, what a caller puts into `model`: `llama3.2:latest` and `hf.co/x/y:Q4_K_M` too. Names that begin with
   * `ft:` are those of tenants' own fine-tunes.
   */
  name: z.string().regex(/^(?!ft:)[a-zA-Z0-9@][a-zA-Z0-9._/:@+-]{0,127}$/),
  aliases: z.array(z.string().min(1).max(128)).default([]),
  ownedBy: z.string().min(1),
  createdSeconds: z.int().nonnegative(),
  provider: z.enum(["workers-ai", "openai-compatible", "rules"]),
  providerModel: z.string().min(1),
  /** Of `openai-compatible` models: base URL up to and including `/v1`; null takes UPSTREAM_URL. */
  endpoint: z.url().nullable().default(null),
  /** Of `openai-compatible` models: what their server takes, where servers differ; the rest is learned from refusals. */
  dialect: DeclaredDialect.optional(),
  contextTokens: z.int().positive(),
  /** How its texts are counted before it is asked; null where none of those known is its own. */
  tokenizer: z.enum(TOKENIZERS).nullable().default(null),
  /** Calls that may run at once on the whole platform; null where the provider scales by itself. */
  maxInFlight: z.int().positive().nullable().default(null),
  capabilities: z.array(z.enum(CAPABILITIES)).default([]),
  /** Regions whose tenants may call it; Workers AI promises no region, which its entries say by naming only global. */
  regions: z.array(z.enum(["global", "eu", "us"])).min(1),
} as const;

/** Of an image whose model's entry says nothing; above what most models make of one, not above all of them. */
const IMAGE_TOKENS = { low: 512, high: 4_096 };

const ChatModel = z.strictObject({
  ...Common,
  task: z.literal("chat"),
  /** The most tokens that one image may be, by its `detail`; every other than `low` is `high`. */
  imageTokens: z.strictObject({ low: z.int().positive(), high: z.int().positive() }).default(IMAGE_TOKENS),
  /** Output cap of a request that names none. */
  defaultMaxOutputTokens: z.int().positive(),
  /** The provider's name of what tells how likely the model answers with each of given labels; null where nothing does. */
  classifier: z.string().min(1).nullable().default(null),
});
const EmbeddingModel = z.strictObject({
  ...Common,
  task: z.literal("embedding"),
  /** Length of its vectors; null where only its server knows. */
  dimensions: z.int().positive().nullable(),
});

/** Judges texts: Llama Guard on Workers AI, or the platform's own rules. */
const ModerationModel = z.strictObject({
  ...Common,
  task: z.literal("moderation"),
  provider: z.enum(["workers-ai", "rules"]),
});

/** Configuration is written in snake_case (TOML, JSON), the code speaks camelCase. */
const SPELLING: Readonly<Record<string, string>> = {
  owned_by: "ownedBy",
  created: "createdSeconds",
  provider_model: "providerModel",
  context_tokens: "contextTokens",
  image_tokens: "imageTokens",
  default_max_output_tokens: "defaultMaxOutputTokens",
  max_in_flight: "maxInFlight",
};
const respelled = (entry: unknown): unknown =>
  typeof entry === "object" && entry !== null
    ? Object.fromEntries(Object.entries(entry).map(([key, value]) => [SPELLING[key] ?? key, value]))
    : entry;

export type ChatModel = z.infer<typeof ChatModel>;
export type EmbeddingModel = z.infer<typeof EmbeddingModel>;
export type ModerationModel = z.infer<typeof ModerationModel>;
export type Model = ChatModel | EmbeddingModel | ModerationModel;

const Document = z.strictObject({
  version: z.string().min(1),
  models: z.array(z.preprocess(respelled, z.discriminatedUnion("task", [ChatModel, EmbeddingModel, ModerationModel]))),
});

export class ModelCatalogue {
  readonly #byName = new Map<string, Model>();

  private constructor(
    readonly version: string,
    readonly models: readonly Model[],
  ) {
    for (const model of models) {
      for (const name of [model.name, ...model.aliases]) {
        if (this.#byName.has(name)) throw new TypeError(`model catalogue ${version} names "${name}" twice`);
        this.#byName.set(name, model);
      }
    }
  }

  /** @throws ZodError or TypeError when the configuration is not a catalogue. */
  static parse(document: unknown): ModelCatalogue {
    const { version, models } = Document.parse(document);
    return new ModelCatalogue(version, models);
  }

  /** The model behind a public name or alias. */
  find(name: string): Model | undefined {
    return this.#byName.get(name);
  }
}
