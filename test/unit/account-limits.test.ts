import { describe, expect, it } from "vitest";
import { changeAccount, changeKey, MAX_ACCOUNTS, MAX_KEYS } from "../../durable-objects/account-changes";
import type { Account, Key } from "../../durable-objects/tenant-facts";
import { firstPolicy } from "../../src/core/plans";

const policy = firstPolicy("proj_1", "global");
const account = (id: string): Account => ({ id, name: id, role: "member", createdAtMs: 1, deletedAtMs: null });
const key = (id: string): Key => ({
  ...{ id, hash: id, serviceAccountId: null, name: id, redactedValue: "…", scopes: ["data"] },
  ...{ expiresAtMs: null, createdAtMs: 1, deletedAtMs: 2 },
});
const factsOf = (accounts: number, keys: number) => ({
  ...{ policy, profile: null, isEmpty: false, hadKey: () => false },
  accounts: new Map(Array.from({ length: accounts }, (_, n) => [`a${n}`, account(`a${n}`)])),
  keys: new Map(Array.from({ length: keys }, (_, n) => [`k${n}`, key(`k${n}`)])),
});
const newKey = {
  type: "create_key",
  id: "new",
  hash: "h",
  serviceAccountId: null,
  name: "n",
  redactedValue: "…",
} as const;

describe("accounts and keys of a project", () => {
  it("are bounded in number, since its gate holds all of them", () => {
    const create = { type: "create_service_account", id: "new", name: "new" } as const;
    expect(changeAccount(policy, factsOf(MAX_ACCOUNTS - 1, 0), create, 3)).toHaveProperty("accounts");
    expect(changeAccount(policy, factsOf(MAX_ACCOUNTS, 0), create, 3)).toEqual({ refused: "too_many" });
  });

  it("count while they can be restored, so that making and deleting is no way around", () => {
    const create = { ...newKey, scopes: ["data"], expiresAtMs: null };
    expect(changeKey(policy, factsOf(0, MAX_KEYS - 1), create as never, 3)).toHaveProperty("keys");
    expect(changeKey(policy, factsOf(0, MAX_KEYS), create as never, 3)).toEqual({ refused: "too_many" });
  });
});
