/** A deliberate fault: with `find` replaced by `replace` in `file`, one of `tests` must fail. `find` occurs there once. */
export interface Mutation {
  readonly promise: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  readonly tests: readonly string[];
}
