import { Buffer } from "node:buffer";
import { keepsNothing, type PolicySnapshot } from "../core/policy";
import {
  type ArtifactFilter,
  type ArtifactRow,
  type ArtifactScope,
  addArtifact,
  conversationOf,
  endArtifacts,
  findArtifact,
  ownerOfArtifact,
  pageOfArtifacts,
  relabel,
  rewrite,
} from "../data/artifacts";
import type { Page } from "../data/page";
import { ApiError } from "../errors";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";
import { unknownCursor } from "../tenancy/projects";
import { assertRoom, endUserOf, type Storing, takingRoom } from "./quota";
import { sweepExpiredArtifacts } from "./sweep";

export type { ArtifactFilter, ArtifactRow } from "../data/artifacts";

type Kind = ArtifactRow["kind"];

/** A row of a database takes 2 MB with everything in it. */
const MAX_INPUT_CHARACTERS = 400_000;
const MAX_CHARACTERS = 600_000;
/** What a character of UTF-16 takes in UTF-8 at most: so much room is enough for anything that is stored. */
const MAX_BYTES = MAX_CHARACTERS * 3;
const DAY_MS = 86_400_000;

/** What is stored of one call. */
export interface Artifact extends Pick<ArtifactRow, "id" | "kind" | "model" | "metadata" | "input" | "output"> {
  /** Of the conversation that it goes on; its own id where it begins one. */
  readonly rootId: string;
  readonly createdAtMs: number;
  /** What it becomes is not known yet: it takes the room of the largest, until its final output is written. */
  readonly isUnfinished?: boolean;
}

/** Whose it is, where it goes, and what the project allows. */
export interface ArtifactOwner {
  readonly services: TenancyPorts;
  readonly tenant: TenantContext;
  readonly policy: PolicySnapshot;
}

/** Whether what was asked to be stored may be: nothing is, where the project keeps no data. */
export const mayKeep = (policy: PolicySnapshot): boolean => !keepsNothing(policy);

/** Before the model is paid for. @throws ApiError 413; 403 where the quota has no room for it */
export async function assertKeepable(owner: ArtifactOwner, input: unknown, param: string): Promise<void> {
  const characters = JSON.stringify(input).length;
  if (characters > MAX_INPUT_CHARACTERS) throw tooLarge(param);
  await assertRoom(storing(owner), characters);
}

/**
 * Stores it before its caller has the end of the reply.
 * @throws ApiError 403 beyond the quota, 413 when it is too large, 503 when it cannot be stored
 */
export async function keep(owner: ArtifactOwner, artifact: Artifact): Promise<void> {
  const { services, tenant, policy } = owner;
  const { createdAtMs, isUnfinished = false, ...row } = artifact;
  const stored = { ...row, input: storable(row.input), output: storable(row.output), endUser: endUserOf(tenant) ?? "" };
  const written = JSON.stringify(stored);
  if (written.length > MAX_CHARACTERS) throw tooLarge("store");
  const bytes = isUnfinished ? MAX_BYTES : Buffer.byteLength(written);
  const times = { createdAtMs, updatedAtMs: createdAtMs, expiresAtMs: createdAtMs + policy.artifactDays * DAY_MS };
  try {
    await takingRoom(storing(owner), (quota) =>
      addArtifact(services.data(tenant), { ...stored, ...times, bytes }, quota),
    );
  } catch (error) {
    if (error instanceof ApiError) throw error;
    console.error(JSON.stringify({ event: "artifact_not_stored", id: row.id, message: String(error).slice(0, 500) }));
    throw new ApiError("storage_unavailable", "The result could not be stored; nothing of it can be retrieved later.");
  }
}

const storing = ({ services, tenant, policy }: ArtifactOwner): Storing => ({
  ...{ ports: services, tenant, policy, kind: "artifact" },
  sweep: async () => (await sweepExpiredArtifacts(services.data(tenant), Date.now())).ended > 0,
});

/** @throws ApiError 404; what is another tenant's, or another end user's, does not exist */
export async function retrieveArtifact(
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  id: string,
): Promise<ArtifactRow> {
  return (await findArtifact(ports.data(tenant), scopeOf(tenant, kind), id)) ?? notFound(kind, id);
}

export const lookUpArtifact = (ports: TenancyPorts, tenant: TenantContext, kind: Kind, id: string) =>
  findArtifact(ports.data(tenant), scopeOf(tenant, kind), id);

/** The latest artifacts of a conversation, newest first. */
export const retrieveConversation = (
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  rootId: string,
  limit: number,
) => conversationOf(ports.data(tenant), scopeOf(tenant, kind), rootId, limit);

export async function listArtifacts(
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  filter: ArtifactFilter,
): Promise<Page<ArtifactRow>> {
  return (await pageOfArtifacts(ports.data(tenant), scopeOf(tenant, kind), filter)) ?? unknownCursor();
}

/**
 * Writes what became of it; nothing where it was deleted meanwhile.
 * @param isFinal it does not change any more: it takes its own room from now on
 * @returns whether it is there
 * @throws ApiError 413
 */
export async function rewriteArtifact(
  ports: TenancyPorts,
  tenant: TenantContext,
  { id, kind, output }: Pick<ArtifactRow, "id" | "kind"> & { readonly output: unknown },
  isFinal = false,
): Promise<boolean> {
  const stored = storable(output);
  const written = JSON.stringify(stored);
  if (written.length > MAX_CHARACTERS) throw tooLarge("store");
  const data = ports.data(tenant);
  const scope = scopeOf(tenant, kind);
  if (!isFinal) return rewrite(data, scope, { id, endUser: "", output: stored }, undefined);
  const found = await findArtifact(data, scope, id);
  if (!found) return false;
  const whole = Buffer.byteLength(written) + Buffer.byteLength(JSON.stringify([found.input, found.metadata]));
  // Rows of versions that did not count take no room, and go on so.
  const bytes = Math.min(whole, found.bytes);
  const row = { id, endUser: found.endUser, output: stored };
  return rewrite(data, scope, row, { bytes, reserved: found.bytes, change: crypto.randomUUID() });
}

/** @throws ApiError 404 */
export async function relabelArtifact(
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  id: string,
  metadata: Readonly<Record<string, string>>,
): Promise<ArtifactRow> {
  if (!(await relabel(ports.data(tenant), scopeOf(tenant, kind), id, metadata))) notFound(kind, id);
  return retrieveArtifact(ports, tenant, kind, id);
}

/** What was said in it is gone at once. @throws ApiError 404 */
export async function deleteArtifact(
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  id: string,
): Promise<void> {
  const data = ports.data(tenant);
  const row = await ownerOfArtifact(data, scopeOf(tenant, kind), id);
  const ended = row ? await endArtifacts(data, [row], { change: crypto.randomUUID(), nowMs: Date.now() }) : 0;
  if (ended === 0) notFound(kind, id);
}

const scopeOf = (tenant: TenantContext, kind: Kind): ArtifactScope => ({
  ...{ kind, endUser: endUserOf(tenant), nowMs: Date.now() },
});

/** Databases take no NUL and no half of a surrogate pair, which a model may make. */
function storable(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, part: unknown) =>
      typeof part === "string" ? part.toWellFormed().replaceAll("\0", "\uFFFD") : part,
    ),
  );
}

function notFound(kind: Kind, id: string): never {
  const what = kind === "response" ? "response" : "stored chat completion";
  throw new ApiError("not_found", `No ${what} with the id '${id.slice(0, 200)}' was found.`);
}

const tooLarge = (param: string) =>
  new ApiError("request_too_large", "This is too large to be stored; send 'store: false', or less.", { param });
