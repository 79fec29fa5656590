/** The contract's categories of harm. */
export const CATEGORIES = [
  "hate",
  "hate/threatening",
  "harassment",
  "harassment/threatening",
  "illicit",
  "illicit/violent",
  "self-harm",
  "self-harm/intent",
  "self-harm/instructions",
  "sexual",
  "sexual/minors",
  "violence",
  "violence/graphic",
] as const;
export type Category = (typeof CATEGORIES)[number];

/** What was found in a text. */
export interface Verdict {
  /** 0 to 1; a category that is missing was not found. */
  readonly scores: Readonly<Partial<Record<Category, number>>>;
  /** What led to it: names of rules, or of the model's own categories. */
  readonly reasons: readonly string[];
}

/** From here on a category counts as found. */
export const FLAGGED_FROM = 0.5;

/**
 * Llama Guard 3's hazards (model card of Llama Guard 3, "Hazard Taxonomy and Policy", after MLCommons) as the
 * contract's categories. It says which it found, not how surely. Specialised advice, privacy, intellectual property
 * and elections have no counterpart: they stand among the reasons alone.
 */
const LLAMA_GUARD: Readonly<Record<string, readonly Category[]>> = {
  S1: ["violence", "illicit/violent"],
  S2: ["illicit"],
  S3: ["sexual"],
  S4: ["sexual", "sexual/minors"],
  S5: ["harassment"],
  S9: ["illicit", "illicit/violent"],
  S10: ["hate"],
  S11: ["self-harm"],
  S12: ["sexual"],
  S14: ["illicit"],
};

export const fromLlamaGuard = (hazards: readonly string[]): Verdict => ({
  scores: Object.fromEntries(hazards.flatMap((hazard) => (LLAMA_GUARD[hazard] ?? []).map((category) => [category, 1]))),
  reasons: hazards.map((hazard) => `llama-guard.${hazard}`),
});
