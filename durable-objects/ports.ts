import type { ObjectAddress } from "../src/core/object-name";
import type { Isolation } from "../src/core/policy";
import type { PriceBook } from "../src/core/prices";
import type { HourlyUsage } from "./tenant-gate.messages";

/**
 * What a TenantGate needs of the world. `src/index.ts` wires the implementations of data and storage, so that an
 * object never imports them.
 */
export interface GatePorts {
  readonly copies: CopySink;
  readonly ledger: Ledger;
  readonly segments: SegmentStore;
  readonly dataKeys: DataKeys;
  readonly purge: Purge;
  readonly sweep: Sweep;
  /** In force for calls that are admitted now. */
  readonly prices: PriceBook;
  /** Draws of one lease at most; 0 gives none, and every call asks. */
  readonly maxDraws: number;
  /** An id for an administrative event that nobody asked for. */
  readonly newAuditId: () => string;
  /** Synchronous SHA-256 of a text, hex: a hash chain must not be interleaved with other work. */
  readonly sha256: (text: string) => string;
}

/** A tenant's object, and where the tenant's rows are. */
export interface ObjectHome extends ObjectAddress {
  readonly isolation: Isolation;
}

/** Removes for good. Each may be called again after it failed. */
export interface Purge {
  /** Rows of the tenant that were deleted at or before that time, and directory entries of keys. */
  deleted(home: ObjectHome, deletedUntilMs: number, keyHashes: readonly string[]): Promise<void>;
  /** Everything of the tenant but its gate and what is the operator's. */
  tenant(home: ObjectHome): Promise<void>;
}

/**
 * Removes what a tenant stores beyond its time: what has expired, what nobody finished, what could not be removed
 * before, and what was deleted before the retention. In bounded batches, and may be repeated.
 * @returns when there is more to do; undefined when nothing ever
 */
export type Sweep = (home: ObjectHome, nowMs: number, retentionMs: number) => Promise<number | undefined>;

/** Where copies of a gate's facts go. Copies of one gate arrive in order and may arrive twice. */
export interface CopySink {
  apply(tenant: ObjectHome, copies: readonly Copy[]): Promise<void>;
}

/** One committed fact, on its way from a gate to the databases that lists are read from. */
export type Copy =
  | {
      readonly of: "project";
      readonly name: string;
      readonly residency: string;
      readonly externalKeyId: string | null;
      readonly status: string;
      readonly createdAtMs: number;
      readonly updatedAtMs: number;
      readonly archivedAtMs: number | null;
      /** When the tenant was purged; missing in copies of earlier versions. */
      readonly deletedAtMs?: number | null;
    }
  | {
      readonly of: "service_account";
      readonly id: string;
      readonly name: string;
      readonly role: string;
      readonly createdAtMs: number;
      readonly updatedAtMs: number;
      readonly deletedAtMs: number | null;
    }
  | {
      readonly of: "api_key";
      readonly id: string;
      readonly hash: string;
      readonly serviceAccountId: string | null;
      readonly name: string;
      readonly redactedValue: string;
      readonly scopes: readonly string[];
      readonly expiresAtMs: number | null;
      readonly createdAtMs: number;
      readonly updatedAtMs: number;
      readonly deletedAtMs: number | null;
    }
  | {
      readonly of: "audit_event";
      readonly id: string;
      readonly type: string;
      readonly effectiveAtMs: number;
      readonly actorKeyId: string | null;
      readonly resourceId: string | null;
      readonly details: Readonly<Record<string, unknown>>;
    };

export interface Ledger {
  /** Absolute values; writing them twice changes nothing. `lastUsedMs` is by key id. */
  write(
    tenant: ObjectHome,
    usage: readonly HourlyUsage[],
    lastUsedMs: Readonly<Record<string, number>>,
    nowMs: number,
  ): Promise<void>;
}

/** A sealed run of journal rows in object storage. */
export interface Segment {
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly objectKey: string;
  readonly sizeBytes: number;
  readonly fromMs: number;
  readonly toMs: number;
  readonly lastHash: string;
}

export interface SegmentStore {
  /** Stores the sealed bytes, then their manifest row. */
  put(tenant: ObjectHome, segment: Segment, sealed: Uint8Array): Promise<void>;
  get(tenant: ObjectAddress, segment: Segment): Promise<Uint8Array>;
}

/** The tenant's data key exists in the gate only in wrapped form. */
export interface DataKeys {
  create(tenant: ObjectAddress): Promise<WrappedKey>;
  seal(tenant: ObjectAddress, key: WrappedKey, purpose: string, plain: Uint8Array): Promise<Uint8Array>;
  open(tenant: ObjectAddress, key: WrappedKey, purpose: string, sealed: Uint8Array): Promise<Uint8Array>;
}
export interface WrappedKey {
  /** Version of the regional wrapping key. */
  readonly wrappedBy: number;
  /** Base64 of nonce and AES-GCM ciphertext. */
  readonly wrapped: string;
}

/** Payloads of one tenant's objects, sealed with its data key; each opens for its own purpose alone. */
export interface PayloadSealing {
  seal(purpose: string, text: string): Promise<Uint8Array>;
  open(purpose: string, sealed: Uint8Array): Promise<string>;
}
