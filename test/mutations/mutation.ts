/**
 * One deliberate fault in the product, and the tests that must turn red because of it. `npm run mutate` applies it to a
 * private copy of the tree; a fault that no named test notices has survived, and the promise is then not guarded.
 */
export interface Mutation {
  /** What holds for users, in one sentence: the fault breaks it. */
  readonly promise: string;
  /** The mutated file, relative to the repository's root. */
  readonly file: string;
  /** Text that occurs exactly once in `file`; anything else makes the mutation stale, which is a failure. */
  readonly find: string;
  /** What takes the place of `find`. */
  readonly replace: string;
  /** Test files, relative to the root, of which at least one must turn red. */
  readonly tests: readonly string[];
}
