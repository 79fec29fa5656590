const BETA_1 = 0.9;
const BETA_2 = 0.999;
const EPSILON = 1e-8;

/** Adam with decoupled weight decay (Loshchilov & Hutter 2019); LoRA wants none of the decay. */
export class AdamW {
  readonly mean: Float32Array;
  readonly variance: Float32Array;

  constructor(count: number) {
    this.mean = new Float32Array(count);
    this.variance = new Float32Array(count);
  }

  /**
   * @param step 1 for the first
   * @param maxNorm gradients longer than this are shortened to it (Pascanu et al. 2013)
   * @returns the length of the gradients before
   */
  update(
    parameters: Float32Array,
    gradients: Float32Array,
    step: number,
    learningRate: number,
    maxNorm: number,
  ): number {
    const { mean, variance } = this;
    let squares = 0;
    for (let i = 0; i < gradients.length; i++) squares += (gradients[i] as number) ** 2;
    const length = Math.sqrt(squares);
    const shrink = length > maxNorm ? maxNorm / length : 1;
    const meanBias = 1 - BETA_1 ** step;
    const varianceBias = 1 - BETA_2 ** step;
    for (let i = 0; i < parameters.length; i++) {
      const gradient = (gradients[i] as number) * shrink;
      const m = BETA_1 * (mean[i] as number) + (1 - BETA_1) * gradient;
      const v = BETA_2 * (variance[i] as number) + (1 - BETA_2) * gradient * gradient;
      mean[i] = m;
      variance[i] = v;
      parameters[i] =
        (parameters[i] as number) - (learningRate * (m / meanBias)) / (Math.sqrt(v / varianceBias) + EPSILON);
    }
    return length;
  }
}
