/** One way to break a promise: replacing `find` (which occurs exactly once in `file`) must turn one of `tests` red. */
export interface Mutation {
  readonly promise: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  readonly tests: readonly string[];
}
