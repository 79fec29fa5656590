import { type PolicySnapshot, readPolicy } from "../src/core/policy";
import type { Copy, WrappedKey } from "./ports";
import type { Account, Change, Key, TenantFacts, TenantProfile } from "./tenant-facts";
import type { AccountRow, KeyRow, Statements } from "./tenant-gate-statements";

/**
 * What the gate is the authority for, in memory and in its own tables: policy, profile, accounts, keys, the wrapped
 * data key, and the outbox of copies on their way to the databases.
 */
export class TenantStore {
  readonly #sql: Statements;
  readonly #accounts = new Map<string, Account>();
  readonly #keys = new Map<string, Key>();
  readonly #keyIdByHash = new Map<string, string>();
  #policy: PolicySnapshot | null;
  #profile: TenantProfile | null;
  #dataKey: WrappedKey | null;

  constructor(sql: Statements) {
    this.#sql = sql;
    for (const row of sql.accounts()) this.#remember(accountOf(row));
    for (const row of sql.keys()) this.#rememberKey(keyOf(row));
    const policy = sql.meta("policy");
    this.#policy = policy === undefined ? null : readPolicy(policy);
    this.#profile = parsed<TenantProfile>(sql.meta("profile"));
    this.#dataKey = parsed<WrappedKey>(sql.meta("data_key"));
  }

  get policy(): PolicySnapshot | null {
    return this.#policy;
  }
  get facts(): TenantFacts {
    const isEmpty = this.#accounts.size === 0 && this.#keys.size === 0 && !this.#sql.hasJournal();
    const hadKey = (hash: string) => this.#keyIdByHash.has(hash) || this.#sql.meta(purgedKey(hash)) !== undefined;
    const { accounts, keys } = { accounts: this.#accounts, keys: this.#keys };
    return { policy: this.#policy, profile: this.#profile, accounts, keys, hadKey, isEmpty };
  }
  get dataKey(): WrappedKey {
    if (!this.#dataKey) throw new TypeError("this tenant has no data key");
    return this.#dataKey;
  }
  get hasDataKey(): boolean {
    return this.#dataKey !== null;
  }

  /** A key that may be used now. */
  liveKey(by: { readonly keyHash: string } | { readonly keyId: string }, nowMs: number): Key | undefined {
    const id = "keyId" in by ? by.keyId : this.#keyIdByHash.get(by.keyHash);
    const key = id === undefined ? undefined : this.#keys.get(id);
    if (!key || key.deletedAtMs !== null) return undefined;
    return key.expiresAtMs !== null && key.expiresAtMs <= nowMs ? undefined : key;
  }

  /** Writes a change, its copies and its audit event; the caller is inside one transaction. */
  apply(change: Change, copies: readonly Copy[], dataKey: WrappedKey | null): void {
    for (const account of change.accounts ?? []) {
      this.#remember(account);
      this.#sql.putAccount(rowOfAccount(account));
    }
    for (const key of change.keys ?? []) {
      this.#rememberKey(key);
      this.#sql.putKey(rowOfKey(key));
    }
    if (change.profile) this.#sql.putMeta("profile", JSON.stringify(change.profile));
    this.#profile = change.profile ?? this.#profile;
    if (change.policy) this.#sql.putMeta("policy", JSON.stringify(change.policy));
    this.#policy = change.policy ?? this.#policy;
    if (dataKey) this.#sql.putMeta("data_key", JSON.stringify(dataKey));
    this.#dataKey = dataKey ?? this.#dataKey;
    for (const copy of copies) this.#sql.putOutbox(JSON.stringify(copy));
  }

  /** Removes what was purged everywhere else; the caller is inside one transaction. */
  forget(accounts: readonly Account[], keys: readonly Key[]): void {
    for (const { id, hash, serviceAccountId } of keys) {
      this.#keys.delete(id);
      this.#keyIdByHash.delete(hash);
      this.#sql.removeKey(id);
      // The only keys that somebody else can offer again by their hash; a tenant's are made here, each at random.
      if (serviceAccountId === null) this.#sql.putMeta(purgedKey(hash), "1");
    }
    for (const { id } of accounts) {
      this.#accounts.delete(id);
      this.#sql.removeAccount(id);
    }
  }

  #remember(account: Account): void {
    this.#accounts.set(account.id, account);
  }

  #rememberKey(key: Key): void {
    this.#keys.set(key.id, key);
    this.#keyIdByHash.set(key.hash, key.id);
  }
}

/** Outlives the key: what was deleted is not registered again. */
const purgedKey = (hash: string) => `purged_key ${hash}`;
const parsed = <T>(text: string | undefined): T | null => (text === undefined ? null : (JSON.parse(text) as T));

const accountOf = (row: AccountRow): Account => ({
  id: row.id,
  name: row.name,
  role: row.role,
  createdAtMs: row.created_at,
  deletedAtMs: row.deleted_at,
});
const rowOfAccount = (account: Account): AccountRow => ({
  id: account.id,
  name: account.name,
  role: account.role,
  created_at: account.createdAtMs,
  deleted_at: account.deletedAtMs,
});
const keyOf = (row: KeyRow): Key => ({
  id: row.id,
  hash: row.hash,
  serviceAccountId: row.service_account_id,
  name: row.name,
  redactedValue: row.redacted_value,
  scopes: JSON.parse(row.scopes) as string[],
  expiresAtMs: row.expires_at,
  createdAtMs: row.created_at,
  deletedAtMs: row.deleted_at,
});
const rowOfKey = (key: Key): KeyRow => ({
  id: key.id,
  hash: key.hash,
  service_account_id: key.serviceAccountId,
  name: key.name,
  redacted_value: key.redactedValue,
  scopes: JSON.stringify(key.scopes),
  expires_at: key.expiresAtMs,
  created_at: key.createdAtMs,
  deleted_at: key.deletedAtMs,
});
