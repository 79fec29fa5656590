import { type FileQuota, filesOf } from "../core/plans";
import { keepsNothing, type PolicySnapshot } from "../core/policy";
import type { ByteRange } from "../core/sealed-chunks";
import {
  addFile,
  expiredFiles,
  type FileRow,
  type FileScope,
  filesTaken,
  findFile,
  pageOfFiles,
  removeFile,
} from "../data/files";
import type { Page, PageRequest } from "../data/page";
import { ApiError } from "../errors";
import type { FileStore } from "../storage/files";
import type { TenantContext } from "../tenancy/context";
import { askGate } from "../tenancy/gates";
import { newId } from "../tenancy/ids";
import type { TenancyPorts } from "../tenancy/ports";
import { unknownCursor } from "../tenancy/projects";
import { JsonLines } from "./json-lines";

export type { FileRow } from "../data/files";

export const UPLOAD_PURPOSES = ["assistants", "batch", "fine-tune", "vision", "user_data"] as const;
export type UploadPurpose = (typeof UPLOAD_PURPOSES)[number];
const MAX_FILE_BYTES = 512 * 1024 * 1024;
/** Files of batches are not kept for ever. */
const BATCH_SECONDS = 30 * 24 * 60 * 60;
/** Expired files that one upload clears away. */
const SWEPT_AT_ONCE = 20;

export interface FilePorts extends TenancyPorts {
  readonly files: FileStore;
}

/** What is told of a file beside its bytes, in whatever order it is told. */
export interface FileLabel {
  readonly filename: string;
  readonly purpose: UploadPurpose;
  readonly expiresAfterSeconds: number | undefined;
}

/**
 * Stores a file as it comes; its label may come after it.
 * @throws ApiError 400 for lines that its purpose does not take, 403 beyond the quota, 413 for one that is too large
 */
export async function uploadFile(
  ports: FilePorts,
  tenant: TenantContext,
  policy: PolicySnapshot,
  source: AsyncIterable<Uint8Array>,
  label: () => Promise<FileLabel>,
): Promise<FileRow> {
  if (keepsNothing(policy))
    throw new ApiError("data_not_kept", "This project keeps no data, so it takes no files.", { param: "file" });
  const data = ports.data(tenant);
  const quota = filesOf(policy);
  await sweep(ports, tenant);
  assertRoom(await filesTaken(data), quota, 0);
  const id = newId("file");
  const lines = new JsonLines();
  const stored = await ports.files.put(tenant, await dataKeyOf(ports, tenant), id, watched(source, lines));
  const nowMs = Date.now();
  try {
    const { filename, purpose, expiresAfterSeconds } = await label();
    const problem = lines.problemFor(purpose);
    if (problem !== undefined)
      throw new ApiError("invalid_file", `The file cannot be used for '${purpose}': ${problem}.`, { param: "file" });
    const lifeSeconds = expiresAfterSeconds ?? (purpose === "batch" ? BATCH_SECONDS : undefined);
    const row = {
      ...{ id, filename, purpose, ...stored, endUser: endUserOf(tenant) ?? "" },
      expiresAtMs: lifeSeconds === undefined ? null : nowMs + lifeSeconds * 1000,
      ...{ createdAtMs: nowMs, updatedAtMs: nowMs },
    };
    await addFile(data, row);
    await withinQuota(ports, tenant, quota, id);
    return { ...row, tenantId: tenant.tenantId, deletedAtMs: null };
  } catch (error) {
    await ports.files.remove(tenant, [id]);
    throw error;
  }
}

/** @throws ApiError 404 */
export async function retrieveFile(ports: FilePorts, tenant: TenantContext, id: string): Promise<FileRow> {
  return (await findFile(ports.data(tenant), scopeOf(tenant), id)) ?? notFound(id);
}

export async function listFiles(
  ports: FilePorts,
  tenant: TenantContext,
  page: PageRequest & { readonly purpose: string | undefined },
): Promise<Page<FileRow>> {
  return (await pageOfFiles(ports.data(tenant), scopeOf(tenant), page)) ?? unknownCursor();
}

/** Its bytes, or a part of them. @throws ApiError 404 */
export async function fileContent(
  ports: FilePorts,
  tenant: TenantContext,
  row: FileRow,
  range: ByteRange | null,
): Promise<ReadableStream<Uint8Array>> {
  const content = await ports.files.get(tenant, await dataKeyOf(ports, tenant), row.id, row, range);
  return content ?? notFound(row.id);
}

/** The bytes are gone at once; that there was a file is forgotten with the retention. @throws ApiError 404 */
export async function deleteFile(ports: FilePorts, tenant: TenantContext, id: string): Promise<void> {
  await retrieveFile(ports, tenant, id);
  await removeFile(ports.data(tenant), id, Date.now());
  await ports.files.remove(tenant, [id]);
}

async function* watched(source: AsyncIterable<Uint8Array>, lines: JsonLines): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const piece of source) {
    bytes += piece.byteLength;
    if (bytes > MAX_FILE_BYTES)
      throw new ApiError("request_too_large", `A file has at most ${MAX_FILE_BYTES / 1024 / 1024} MiB.`, {
        param: "file",
      });
    lines.push(piece);
    yield piece;
  }
  lines.end();
}

/** Two at once may both have seen room: whoever finds too much afterwards takes its own back. */
async function withinQuota(ports: FilePorts, tenant: TenantContext, quota: FileQuota, id: string): Promise<void> {
  const data = ports.data(tenant);
  const taken = await filesTaken(data);
  if (taken.count <= quota.count && taken.bytes <= quota.bytes) return;
  await removeFile(data, id, Date.now());
  throw beyondQuota(quota);
}

function assertRoom(taken: { readonly count: number; readonly bytes: number }, quota: FileQuota, more: number): void {
  if (taken.count + 1 > quota.count || taken.bytes + more > quota.bytes) throw beyondQuota(quota);
}

const beyondQuota = ({ count, bytes }: FileQuota) =>
  new ApiError(
    "storage_quota_exceeded",
    `This project's plan has room for ${count} files and ${bytes} bytes in all. Delete what is not needed.`,
    { param: "file", headers: { "x-should-retry": "false" } },
  );

async function sweep(ports: FilePorts, tenant: TenantContext): Promise<void> {
  const data = ports.data(tenant);
  const nowMs = Date.now();
  const expired = await expiredFiles(data, nowMs, SWEPT_AT_ONCE);
  for (const { id } of expired) await removeFile(data, id, nowMs);
  await ports.files.remove(
    tenant,
    expired.map(({ id }) => id),
  );
}

async function dataKeyOf(ports: FilePorts, tenant: TenantContext) {
  const key = await askGate(() => ports.gate(tenant).dataKey(), "storage_unavailable");
  if (!key) throw new ApiError("not_found", "The project does not exist any more.");
  return key;
}

const scopeOf = (tenant: TenantContext): FileScope => ({ endUser: endUserOf(tenant), nowMs: Date.now() });
const endUserOf = ({ actor }: TenantContext): string | null => (actor.type === "end_user" ? actor.subject : null);

function notFound(id: string): never {
  throw new ApiError("not_found", `No file with the id '${id.slice(0, 200)}' was found.`);
}
