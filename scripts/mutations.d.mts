import type { Mutation } from "../test/mutations/mutation";

/** How one mutation fared; the last three are failures of the mutation itself, and count as not caught. */
export type Outcome = "caught" | "survived" | "stale" | "invalid" | "red without it";
export interface MutationResult extends Mutation {
  readonly part: string;
  readonly outcome: Outcome;
  readonly seconds: number;
  /** What noticed it, or why it could not be run. */
  readonly detail: string;
  /** Of the mutation, the mutated file and the tests, as they were. */
  readonly digest: string;
}
export interface PartScore {
  readonly part: string;
  readonly caught: number;
  readonly all: number;
  readonly percent: number;
}
export const REQUIRED_PERCENT: number;
/** The mutated text, or why there is none. */
export function applyMutation(
  text: string,
  mutation: Pick<Mutation, "find" | "replace">,
): { readonly text: string } | { readonly stale: string };
export function scores(results: readonly Pick<MutationResult, "part" | "outcome">[]): PartScore[];
export function isEnough(scores: readonly PartScore[]): boolean;
export function proofSection(
  results: readonly MutationResult[],
  run: { readonly date: string; readonly machine: string },
): string;
/** The document with its section of that name replaced, or with one added. */
export function withSection(document: string, name: string, body: string): string;
export function remainingSeconds(remaining: readonly string[], secondsOf: ReadonlyMap<string, number>): number;
export function isSelected(
  mutation: Pick<Mutation, "promise" | "file"> & { readonly part: string },
  filters: readonly string[],
): boolean;
