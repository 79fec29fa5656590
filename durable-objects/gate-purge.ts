import { copiesOf, purgedTenant } from "./changes";
import type { GatePorts, ObjectHome } from "./ports";
import { beyondRetention, restorableUntilMs } from "./retention";
import type { TenantStore } from "./tenant-store";

/** What removing for good needs of its gate. */
export interface PurgeHooks {
  readonly home: () => ObjectHome;
  readonly transaction: (work: () => void) => void;
  /** Everything that others keep of this gate reaches them first. */
  readonly flush: () => Promise<void>;
  /** Forgets the object itself. */
  readonly erase: () => Promise<void>;
}

/** Removes for good what nothing can bring back: deleted objects after the retention window, or the whole tenant. */
export class GatePurge {
  constructor(
    readonly store: TenantStore,
    readonly ports: GatePorts,
    readonly hooks: PurgeHooks,
  ) {}

  /** @returns whether the tenant is gone, and this object with it */
  async run(nowMs: number): Promise<boolean> {
    const { facts, policy } = this.store;
    if (!policy) return false;
    const restorable = restorableUntilMs(facts);
    if (policy.status === "purged" || (restorable !== undefined && restorable <= nowMs)) {
      await this.#tenant(nowMs);
      return true;
    }
    const { untilMs, accounts, keys } = beyondRetention(facts, nowMs);
    if (accounts.length + keys.length === 0) return false;
    const hashes = keys.map(({ hash }) => hash);
    await this.ports.purge.deleted(this.hooks.home(), untilMs, hashes);
    this.hooks.transaction(() => this.store.forget(accounts, keys));
    return false;
  }

  /** First the decision, which stands whatever happens then; last the gate itself. */
  async #tenant(nowMs: number): Promise<void> {
    const { facts, policy } = this.store;
    if (policy && policy.status !== "purged") {
      const change = purgedTenant(policy);
      const copies = copiesOf(change, facts, { id: this.ports.newAuditId(), actorKeyId: null }, nowMs);
      this.hooks.transaction(() => this.store.apply(change, copies, null));
    }
    await this.hooks.flush();
    await this.ports.purge.tenant(this.hooks.home());
    await this.hooks.erase();
  }
}
