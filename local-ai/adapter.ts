/**
 * A LoRA adapter (Hu et al. 2021) as the engine takes it: y = W x + scale × B (A x), for any of a layer's seven
 * matrices. The names are those of Hugging Face PEFT.
 */
export const TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
export type Target = (typeof TARGETS)[number];

export interface LoraPair {
  readonly a: Float32Array; // (rank, inputs of the matrix)
  readonly b: Float32Array; // (outputs of the matrix, rank)
}

export interface LoraAdapter {
  /** 1 to {@link MAX_RANK}. */
  readonly rank: number;
  /** lora_alpha / rank; with `use_rslora` lora_alpha / √rank. */
  readonly scale: number;
  /** One for each layer of the base; a matrix that is missing is not adapted. */
  readonly layers: readonly Readonly<Partial<Record<Target, LoraPair>>>[];
}

export const MAX_RANK = 32;
