import { beyondQuota, bytesLeft, endUserOf, type Storing, takingRoom } from "../artifacts/quota";
import { keepsNothing, type PolicySnapshot } from "../core/policy";
import type { ByteRange } from "../core/sealed-chunks";
import {
  beginUpload,
  type FileRow,
  type FileScope,
  findFile,
  finishUpload,
  type NewUpload,
  pageOfFiles,
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
import { removeFiles, sweepExpiredFiles } from "./sweep";

export type { FileRow } from "../data/files";

export const UPLOAD_PURPOSES = ["assistants", "batch", "fine-tune", "vision", "user_data"] as const;
export type UploadPurpose = (typeof UPLOAD_PURPOSES)[number];
const MAX_FILE_BYTES = 512 * 1024 * 1024;
/** Files of batches are not kept for ever. */
const BATCH_SECONDS = 30 * 24 * 60 * 60;
/** An upload that is not over after this long is taken for abandoned: its row and its bytes are removed. */
const UPLOAD_MS = 6 * 60 * 60 * 1000;
/** What a form may have beside its file. */
const MAX_FORM_BYTES = 2 * 1024 * 1024;

export interface FilePorts extends TenancyPorts {
  readonly files: FileStore;
}

/** What is told of a file beside its bytes, in whatever order it is told. */
export interface FileLabel {
  readonly filename: string;
  readonly purpose: UploadPurpose;
  readonly expiresAfterSeconds: number | undefined;
}

/** A file as it comes. */
export interface FileSource {
  readonly content: AsyncIterable<Uint8Array>;
  /** Of the whole form, as its sender said; undefined where it did not. */
  readonly formBytes: number | undefined;
}

/**
 * Stores a file as it comes; its label may come after it. Its row is there before its bytes, with room for all of
 * them, and is found when they are: whatever is cut off in between, maintenance removes both.
 * @throws ApiError 400 for lines that its purpose does not take, 403 beyond the quota, 413 for one that is too large
 */
export async function uploadFile(
  ports: FilePorts,
  tenant: TenantContext,
  policy: PolicySnapshot,
  source: FileSource,
  label: () => Promise<FileLabel>,
): Promise<FileRow> {
  if (keepsNothing(policy))
    throw new ApiError("data_not_kept", "This project keeps no data, so it takes no files.", { param: "file" });
  const storing = storingOf(ports, tenant, policy);
  const dataKey = await dataKeyOf(ports, tenant); // the gate sees to it that a sweep follows
  const upload = await reserveUpload(storing, source.formBytes);
  try {
    const lines = new JsonLines();
    const content = watched(source.content, lines, upload.bytes, storing);
    const stored = await ports.files.put(tenant, dataKey, upload.id, content);
    const { filename, purpose, expiresAfterSeconds } = await label();
    const problem = lines.problemFor(purpose);
    if (problem !== undefined)
      throw new ApiError("invalid_file", `The file cannot be used for '${purpose}': ${problem}.`, { param: "file" });
    const nowMs = Date.now();
    const lifeSeconds = expiresAfterSeconds ?? (purpose === "batch" ? BATCH_SECONDS : undefined);
    const finished = {
      ...{ filename, purpose, ...stored },
      expiresAtMs: lifeSeconds === undefined ? null : nowMs + lifeSeconds * 1000,
    };
    if (!(await finishUpload(ports.data(tenant), upload, finished, nowMs)))
      throw new ApiError("storage_unavailable", "The upload took too long and was given up. Send the file again.");
    return {
      ...{ ...finished, id: upload.id, endUser: upload.endUser, tenantId: tenant.tenantId, state: "ready" },
      ...{ createdAtMs: nowMs, updatedAtMs: nowMs, deletedAtMs: null, sweepAtMs: null, change: upload.change },
    };
  } catch (error) {
    await removeFiles(ports, tenant, [upload], { from: "uploading", nowMs: Date.now() }).catch(() => {}); // maintenance comes by
    throw error;
  }
}

/** Room for the whole file, and its row, before a byte of it is stored. */
async function reserveUpload(storing: Storing, formBytes: number | undefined): Promise<NewUpload> {
  const { ports, tenant } = storing;
  const left = await bytesLeft(storing);
  if (formBytes !== undefined && formBytes - MAX_FORM_BYTES > left) throw beyondQuota(storing);
  const nowMs = Date.now();
  const upload: NewUpload = {
    ...{ id: newId("file"), endUser: endUserOf(tenant) ?? "", change: crypto.randomUUID() },
    bytes: Math.min(formBytes ?? MAX_FILE_BYTES, MAX_FILE_BYTES, left),
    sweepAtMs: nowMs + UPLOAD_MS,
  };
  await takingRoom(storing, (quota) => beginUpload(ports.data(tenant), upload, quota, nowMs));
  return upload;
}

const storingOf = (ports: FilePorts, tenant: TenantContext, policy: PolicySnapshot): Storing => ({
  ...{ ports, tenant, policy, kind: "file" },
  sweep: async () => (await sweepExpiredFiles(ports, tenant, Date.now())).removed > 0,
});

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

/**
 * From now on nobody finds it and it takes no room; its bytes are removed at once, or by maintenance where object
 * storage does not answer. That there was a file is forgotten with the retention. @throws ApiError 404
 */
export async function deleteFile(ports: FilePorts, tenant: TenantContext, id: string): Promise<void> {
  const row = await retrieveFile(ports, tenant, id);
  await dataKeyOf(ports, tenant); // the gate sees to it that a sweep follows, whatever becomes of the rest
  if ((await removeFiles(ports, tenant, [row], { from: "ready", nowMs: Date.now() })) === 0) notFound(id);
}

async function* watched(
  source: AsyncIterable<Uint8Array>,
  lines: JsonLines,
  reserved: number,
  storing: Storing,
): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const piece of source) {
    bytes += piece.byteLength;
    if (bytes > MAX_FILE_BYTES)
      throw new ApiError("request_too_large", `A file has at most ${MAX_FILE_BYTES / 1024 / 1024} MiB.`, {
        param: "file",
      });
    if (bytes > reserved) throw beyondQuota(storing);
    lines.push(piece);
    yield piece;
  }
  lines.end();
}

async function dataKeyOf(ports: FilePorts, tenant: TenantContext) {
  const key = await askGate(() => ports.gate(tenant).dataKey(), "storage_unavailable");
  if (!key) throw new ApiError("not_found", "The project does not exist any more.");
  return key;
}

const scopeOf = (tenant: TenantContext): FileScope => ({ endUser: endUserOf(tenant), nowMs: Date.now() });

function notFound(id: string): never {
  throw new ApiError("not_found", `No file with the id '${id.slice(0, 200)}' was found.`);
}
