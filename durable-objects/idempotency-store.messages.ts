import { z } from "zod";

/** What goes between the Worker and an IdempotencyStore. Version 1. */
const Digest = z.string().regex(/^[0-9a-f]{64}$/);
const RequestId = z.string().min(1).max(200);

/** Larger replies are remembered as given, and cannot be given again. */
export const MAX_REPLY_BYTES = 1024 * 1024;

export const ClaimRequest = z.object({
  /** SHA-256 of who calls and of its key. */
  key: Digest,
  /** SHA-256 of what is asked. */
  body: Digest,
  requestId: RequestId,
  /** How long to wait for another request with the same key. */
  patienceMs: z.int().min(0).max(60_000),
  /** After this long a claim that nobody ended is nobody's. */
  holdMs: z.int().min(1).max(86_400_000),
});
export type ClaimRequest = z.input<typeof ClaimRequest>;

export const KeepRequest = z.object({
  key: Digest,
  requestId: RequestId,
  /** SHA-256 of what could not be known before it was read: a form. Null where the body said all. */
  content: Digest.nullable(),
  /** Null where it may not be kept, or is too large. */
  reply: z
    .object({
      status: z.int().min(200).max(599),
      headers: z.array(z.tuple([z.string().max(100), z.string().max(4_096)])).max(20),
      body: z.instanceof(Uint8Array).refine(({ byteLength }) => byteLength <= MAX_REPLY_BYTES),
    })
    .nullable(),
});
export type KeepRequest = z.input<typeof KeepRequest>;
export type KeptReply = NonNullable<z.output<typeof KeepRequest>["reply"]>;

export type ClaimReply =
  /** The caller does the work, and keeps or releases. */
  | { readonly state: "claimed" }
  | { readonly state: "kept"; readonly reply: KeptReply; readonly content: string | null }
  /** It was done, and its reply was not kept. */
  | { readonly state: "done"; readonly content: string | null }
  /** The key belongs to a request that asked for something else. */
  | { readonly state: "reused" }
  /** Another request with it is still being worked on. */
  | { readonly state: "running" };

/** The methods of an IdempotencyStore, as its callers see them. Each may be called again. */
export interface IdempotencyStoreRpc {
  claim(request: ClaimRequest): Promise<ClaimReply>;
  keep(request: KeepRequest): Promise<void>;
  /** The request came to nothing: the next one with its key does the work. */
  release(key: string, requestId: string): Promise<void>;
  countRows(): Promise<number>;
  erase(): Promise<void>;
}
