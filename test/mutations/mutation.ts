/** One change that breaks a promise of the product; the named tests must notice it. */
export interface Mutation {
  readonly promise: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  readonly tests: readonly string[];
}
