import { z } from "zod";
import type { ByteRange } from "../core/sealed-chunks";
import { ApiError } from "../errors";
import {
  deleteFile,
  type FileLabel,
  type FileRow,
  fileContent,
  listFiles,
  retrieveFile,
  UPLOAD_PURPOSES,
  uploadFile,
} from "../files/files";
import { digestOfForm } from "./form-digest";
import type { AppContext, Handler } from "./handler";
import { listToWire, seconds } from "./lists";
import { readForm } from "./multipart";
import { parse, parseQuery } from "./parse";

const Fields = z.strictObject({
  purpose: z.enum(UPLOAD_PURPOSES),
  expires_after: z
    .strictObject({ anchor: z.literal("created_at"), seconds: z.coerce.number().int().min(3_600).max(2_592_000) })
    .optional(),
});
const ListQuery = z.strictObject({
  purpose: z.string().min(1).max(64).optional(),
  limit: z.coerce.number().int().min(1).max(10_000).default(10_000),
  order: z.enum(["asc", "desc"]).default("desc"),
  after: z.string().min(1).max(200).optional(),
});
/** Rows of one page, however many are asked for. */
const MAX_PAGE = 1_000;

const fileId = (c: AppContext): string => c.req.param("file_id") ?? "";

export const postFile: Handler = async (c) => {
  const { services, tenant, policy } = c.var;
  const row = await readForm(c.req.raw, async ({ filename, content }, fields) => {
    const label = async () => labelOf(filename, await fields());
    const stored = await uploadFile(services, tenant, policy, { content, formBytes: formBytesOf(c) }, label);
    c.var.ending.formDigest = digestOfForm(filename, stored.sha256, await fields());
    return stored;
  });
  return c.json(toWire(row));
};

function formBytesOf(c: AppContext): number | undefined {
  const told = Number(c.req.header("content-length") ?? Number.NaN);
  return Number.isSafeInteger(told) && told >= 0 ? told : undefined;
}

export const getFiles: Handler = async (c) => {
  const { limit, ...asked } = parseQuery(ListQuery, c.req.url);
  const page = { ...asked, limit: Math.min(limit, MAX_PAGE), after: asked.after, purpose: asked.purpose };
  const { first_id, last_id, ...wire } = listToWire(await listFiles(c.var.services, c.var.tenant, page), toWire);
  return c.json({ ...wire, first_id: first_id ?? "", last_id: last_id ?? "" });
};

export const getFile: Handler = async (c) =>
  c.json(toWire(await retrieveFile(c.var.services, c.var.tenant, fileId(c))));

export const removeFile: Handler = async (c) => {
  const id = fileId(c);
  await deleteFile(c.var.services, c.var.tenant, id);
  return c.json({ id, object: "file" as const, deleted: true });
};

export const getFileContent: Handler = async (c) => {
  const { services, tenant } = c.var;
  const row = await retrieveFile(services, tenant, fileId(c));
  const isHead = c.req.raw.method === "HEAD"; // which knows no ranges (RFC 9110, 14.2)
  const range = isHead ? null : rangeOf(c.req.header("range"), row.bytes);
  const bytes = range ? range.last - range.first + 1 : row.bytes;
  const headers = {
    "content-type": "application/octet-stream",
    "content-disposition": `attachment; filename*=UTF-8''${encodeURIComponent(row.filename)}`,
    "accept-ranges": "bytes",
    etag: `"${row.sha256}"`,
    "content-length": String(bytes),
  };
  if (isHead) return new Response(null, { headers });
  // A body whose length is known is sent with it; of another stream the runtime leaves the header out.
  const content = (await fileContent(services, tenant, row, range)).pipeThrough(new FixedLengthStream(bytes));
  if (!range) return new Response(content, { headers });
  const contentRange = `bytes ${range.first}-${range.last}/${row.bytes}`;
  return new Response(content, { status: 206, headers: { ...headers, "content-range": contentRange } });
};

/** One range (RFC 9110, 14.2); several, and what is no range of bytes, give the whole. @throws ApiError 416 */
function rangeOf(header: string | undefined, bytes: number): ByteRange | null {
  const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (first === "" && last === "") return null;
  const range =
    first === ""
      ? { first: Math.max(0, bytes - Number(last)), last: bytes - 1 }
      : { first: Number(first), last: last === "" ? bytes - 1 : Math.min(Number(last), bytes - 1) };
  if (range.first <= range.last && range.first < bytes) return range;
  throw new ApiError("range_not_satisfiable", `The file has ${bytes} bytes.`, {
    headers: { "content-range": `bytes */${bytes}` },
  });
}

/** Fields as forms write them: `expires_after[anchor]`. */
function labelOf(filename: string, fields: ReadonlyMap<string, string>): FileLabel {
  const body: Record<string, unknown> = {};
  for (const [name, value] of fields) {
    const [, outer, inner] = /^(\w+)\[(\w+)\]$/.exec(name) ?? [];
    if (outer === undefined || inner === undefined) body[name] = value;
    else body[outer] = { ...(body[outer] as object | undefined), [inner]: value };
  }
  const { purpose, expires_after } = parse(Fields, body);
  return { filename: filename.slice(0, 512), purpose, expiresAfterSeconds: expires_after?.seconds };
}

const toWire = ({ id, bytes, createdAtMs, expiresAtMs, filename, purpose }: FileRow) => ({
  id,
  object: "file" as const,
  bytes,
  created_at: seconds(createdAtMs),
  ...(expiresAtMs === null ? {} : { expires_at: seconds(expiresAtMs) }),
  filename,
  purpose,
  status: "processed" as const,
});
