import { keepsNothing, type PolicySnapshot } from "../core/policy";
import {
  type ArtifactFilter,
  type ArtifactRow,
  type ArtifactScope,
  addArtifact,
  changeArtifact,
  conversationOf,
  findArtifact,
  pageOfArtifacts,
  removeArtifact,
} from "../data/artifacts";
import type { Page } from "../data/page";
import { ApiError } from "../errors";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";
import { unknownCursor } from "../tenancy/projects";

export type { ArtifactFilter, ArtifactRow } from "../data/artifacts";

type Kind = ArtifactRow["kind"];

/** A row of a database takes 2 MB with everything in it. */
const MAX_INPUT_CHARACTERS = 400_000;
const MAX_CHARACTERS = 600_000;

/** What is stored of one call. */
export interface Artifact extends Pick<ArtifactRow, "id" | "kind" | "model" | "metadata" | "input" | "output"> {
  /** Of the conversation that it goes on; its own id where it begins one. */
  readonly rootId: string;
  readonly createdAtMs: number;
}

/** Whether what was asked to be stored may be: nothing is, where the project keeps no data. */
export const mayKeep = (policy: PolicySnapshot): boolean => !keepsNothing(policy);

/** Before the model is paid for. @throws ApiError 413 */
export function assertKeepable(input: unknown, param: string): void {
  if (JSON.stringify(input).length > MAX_INPUT_CHARACTERS) throw tooLarge(param);
}

/** Stores it before its caller has the end of the reply. @throws ApiError 503 when it cannot be stored */
export async function keep(ports: TenancyPorts, tenant: TenantContext, artifact: Artifact): Promise<void> {
  const { createdAtMs, ...row } = artifact;
  const stored = { ...row, input: storable(row.input), output: storable(row.output), endUser: endUserOf(tenant) ?? "" };
  if (JSON.stringify(stored).length > MAX_CHARACTERS) throw tooLarge("store");
  try {
    await addArtifact(ports.data(tenant), { ...stored, createdAtMs, updatedAtMs: createdAtMs });
  } catch (error) {
    console.error(JSON.stringify({ event: "artifact_not_stored", id: row.id, message: String(error).slice(0, 500) }));
    throw new ApiError("storage_unavailable", "The result could not be stored; nothing of it can be retrieved later.");
  }
}

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

/** Writes what became of it; nothing where it was deleted meanwhile. */
export async function rewriteArtifact(
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  id: string,
  output: unknown,
): Promise<void> {
  const stored = storable(output);
  if (JSON.stringify(stored).length > MAX_CHARACTERS) throw tooLarge("store");
  await changeArtifact(ports.data(tenant), scopeOf(tenant, kind), id, { output: stored }, Date.now());
}

/** @throws ApiError 404 */
export async function relabelArtifact(
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  id: string,
  metadata: Readonly<Record<string, string>>,
): Promise<ArtifactRow> {
  const changed = await changeArtifact(ports.data(tenant), scopeOf(tenant, kind), id, { metadata }, Date.now());
  if (!changed) notFound(kind, id);
  return retrieveArtifact(ports, tenant, kind, id);
}

/** @throws ApiError 404 */
export async function deleteArtifact(
  ports: TenancyPorts,
  tenant: TenantContext,
  kind: Kind,
  id: string,
): Promise<void> {
  const removed = await removeArtifact(ports.data(tenant), scopeOf(tenant, kind), id, Date.now());
  if (!removed) notFound(kind, id);
}

const scopeOf = (tenant: TenantContext, kind: Kind): ArtifactScope => ({ kind, endUser: endUserOf(tenant) });

/** An end user sees what it asked for itself; the tenant's server sees everything. */
const endUserOf = ({ actor }: TenantContext): string | null => (actor.type === "end_user" ? actor.subject : null);

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
