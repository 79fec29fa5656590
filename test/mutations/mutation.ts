/** A fault put into the product on purpose: `find` stands once in `file`, and one of `tests` must notice `replace`. */
export interface Mutation {
  readonly promise: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  readonly tests: readonly string[];
}
