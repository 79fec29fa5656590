import { createHash } from "node:crypto";
import { readForm } from "./multipart";

/** What makes two forms the same: their file, its name and their fields. Boundaries differ each time. */
export function digestOfForm(filename: string, sha256: string, fields: ReadonlyMap<string, string>): string {
  const told = [...fields].sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256")
    .update(JSON.stringify([filename, sha256, told]))
    .digest("hex");
}

/** Reads a form for its digest alone. @throws ApiError 400 for one that cannot be read */
export const formDigest = (request: Request): Promise<string> =>
  readForm(request, async ({ filename, content }, fields) => {
    const hash = createHash("sha256");
    for await (const piece of content) hash.update(piece);
    return digestOfForm(filename, hash.digest("hex"), await fields());
  });
