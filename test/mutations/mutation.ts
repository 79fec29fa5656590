/** A fault put into the code on purpose, and the test files that must notice it. */
export interface Mutation {
  readonly promise: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  readonly tests: readonly string[];
}
