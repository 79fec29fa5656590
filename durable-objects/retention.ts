import type { Account, Key, TenantFacts } from "./tenant-facts";

const DAY_MS = 86_400_000;

type WithPolicy = Pick<TenantFacts, "policy" | "profile">;

/** Until when an archived tenant can be restored; undefined while it is not archived. */
export function restorableUntilMs({ policy, profile }: WithPolicy): number | undefined {
  if (policy?.status !== "archived" || profile?.archivedAtMs == null) return undefined;
  return profile.archivedAtMs + policy.retentionDays * DAY_MS;
}

/** What of a tenant was deleted so long ago that nothing brings it back. */
export function beyondRetention(
  facts: TenantFacts,
  nowMs: number,
): { readonly untilMs: number; readonly accounts: readonly Account[]; readonly keys: readonly Key[] } {
  const untilMs = nowMs - retentionMs(facts);
  const isOver = ({ deletedAtMs }: { readonly deletedAtMs: number | null }) =>
    deletedAtMs !== null && deletedAtMs <= untilMs;
  return {
    untilMs,
    accounts: [...facts.accounts.values()].filter(isOver),
    keys: [...facts.keys.values()].filter(isOver),
  };
}

/** When the next thing is beyond retention; undefined when nothing is deleted. */
export function nextPurgeMs(facts: TenantFacts): number | undefined {
  const deleted = [...facts.accounts.values(), ...facts.keys.values()]
    .map(({ deletedAtMs }) => deletedAtMs)
    .filter((deletedAtMs) => deletedAtMs !== null);
  const dues = deleted.map((deletedAtMs) => deletedAtMs + retentionMs(facts));
  const tenant = facts.policy?.status === "purged" ? 0 : restorableUntilMs(facts);
  if (tenant !== undefined) dues.push(tenant);
  return dues.length === 0 ? undefined : dues.reduce((first, due) => Math.min(first, due));
}

const retentionMs = ({ policy }: WithPolicy) => (policy?.retentionDays ?? 0) * DAY_MS;
