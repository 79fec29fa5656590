import type { PolicySnapshot } from "../src/core/policy";

/** What a tenant's gate is the authority for, its policy first. */
export interface TenantFacts {
  readonly policy: PolicySnapshot | null;
  readonly profile: TenantProfile | null;
  readonly accounts: ReadonlyMap<string, Account>;
  readonly keys: ReadonlyMap<string, Key>;
  /** Whether a key with that hash was ever made here; those that were purged since count too. */
  readonly hadKey: (hash: string) => boolean;
  /** Nothing of the tenant lies anywhere yet: no account or key was made, no call recorded. */
  readonly isEmpty: boolean;
}
export interface TenantProfile {
  readonly name: string;
  readonly residency: string;
  readonly externalKeyId: string | null;
  readonly createdAtMs: number;
  readonly archivedAtMs: number | null;
}
export interface Account {
  readonly id: string;
  readonly name: string;
  readonly role: string;
  readonly createdAtMs: number;
  readonly deletedAtMs: number | null;
}
export interface Key {
  readonly id: string;
  readonly hash: string;
  readonly serviceAccountId: string | null;
  readonly name: string;
  readonly redactedValue: string;
  readonly scopes: readonly string[];
  readonly expiresAtMs: number | null;
  readonly createdAtMs: number;
  readonly deletedAtMs: number | null;
}

/** A decided change: what to store, what to copy, and the administrative event that goes with it. */
export interface Change {
  readonly policy?: PolicySnapshot;
  readonly profile?: TenantProfile;
  readonly accounts?: readonly Account[];
  readonly keys?: readonly Key[];
  readonly event: {
    readonly type: string;
    readonly resourceId: string;
    readonly details: Readonly<Record<string, unknown>>;
  };
}
export type RefusedChange =
  | "not_found"
  | "archived"
  | "exists"
  | "not_empty"
  | "not_deleted"
  | "parent_deleted"
  | "too_many";
export type Decided = Change | { readonly refused: RefusedChange };

export function withoutUndefined<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}
