import { z } from "zod";
import {
  type ArtifactOwner,
  type ArtifactRow,
  deleteArtifact,
  keep,
  listArtifacts,
  relabelArtifact,
  retrieveArtifact,
} from "../artifacts/artifacts";
import { ApiError } from "../errors";
import type { WireCompletion } from "./chat-reply";
import type { StoredRequest } from "./chat-request";
import type { AppContext, Handler } from "./handler";
import { readJson } from "./json-body";
import { listToWire, partsQuery, partsToWire } from "./lists";
import { Metadata } from "./metadata";
import { parse, parseQuery } from "./parse";

const KIND = "chat.completion";

/** Before its caller has the end of it. */
export async function storeCompletion(
  { services, tenant, policy }: ArtifactOwner,
  completion: WireCompletion,
  { messages, metadata, settings }: StoredRequest,
): Promise<void> {
  const { id, model } = completion;
  const row = { id, kind: KIND, model, metadata, input: messages, output: { ...settings, ...completion } } as const;
  await keep({ services, tenant, policy }, { ...row, rootId: id, createdAtMs: Date.now() });
}

const ListQuery = z.looseObject({
  model: z.string().min(1).max(256).optional(),
  after: z.string().min(1).max(200).optional(),
  limit: z.coerce.number().int().min(1).max(100).default(20),
  order: z.enum(["asc", "desc"]).default("asc"),
});
const MessagesQuery = partsQuery("asc");
const UpdateBody = z.strictObject({ metadata: Metadata.nullable() });
/** As the official clients write a label to look for: `metadata[key]=value`. */
const LABEL = /^metadata\[(.{1,64})\]$/;

/** @throws ApiError that names the parameter */
export const parseUpdate = (body: unknown) => parse(UpdateBody, body);

const completionId = (c: AppContext): string => c.req.param("completion_id") ?? "";

export const getCompletions: Handler = async (c) => {
  const { model, after, limit, order, ...rest } = parseQuery(ListQuery, c.req.url);
  const { services, tenant } = c.var;
  const named = model === undefined ? undefined : (services.pipeline.catalogue.find(model)?.name ?? model);
  const filter = { model: named, metadata: labelsOf(rest), after, limit, order };
  const { first_id, last_id, ...wire } = listToWire(await listArtifacts(services, tenant, KIND, filter), toWire);
  return c.json({ ...wire, first_id: first_id ?? "", last_id: last_id ?? "" });
};

export const getCompletion: Handler = async (c) =>
  c.json(toWire(await retrieveArtifact(c.var.services, c.var.tenant, KIND, completionId(c))));

export const postCompletion: Handler = async (c) => {
  const { metadata } = parseUpdate(await readJson(c.req.raw));
  return c.json(toWire(await relabelArtifact(c.var.services, c.var.tenant, KIND, completionId(c), metadata ?? {})));
};

export const deleteCompletion: Handler = async (c) => {
  const id = completionId(c);
  await deleteArtifact(c.var.services, c.var.tenant, KIND, id);
  return c.json({ object: "chat.completion.deleted" as const, id, deleted: true });
};

export const getCompletionMessages: Handler = async (c) => {
  const asked = parseQuery(MessagesQuery, c.req.url);
  const row = await retrieveArtifact(c.var.services, c.var.tenant, KIND, completionId(c));
  const messages = (row.input as StoredRequest["messages"]).map((message, at) => messageToWire(row.id, message, at));
  return c.json(partsToWire(messages, asked));
};

const toWire = ({ output, metadata }: ArtifactRow) => ({ ...(output as WireCompletion), metadata });

/** A message as it was written; the contract's shape wants its text beside its parts. */
function messageToWire(id: string, message: StoredRequest["messages"][number], index: number) {
  const { content, ...rest } = message;
  const parts = Array.isArray(content) ? content : null;
  const texts = parts?.flatMap((part) => (part.type === "text" ? [part.text] : []));
  return {
    ...rest,
    id: `${id}-${index}`,
    content: texts ? texts.join("") : ((content as string | null | undefined) ?? null),
    content_parts: parts,
    refusal: ("refusal" in message ? message.refusal : null) ?? null,
  };
}

function labelsOf(written: Readonly<Record<string, unknown>>): Record<string, string> | undefined {
  const labels = Object.entries(written).map(([name, value]): [string, string] => {
    const [, key] = LABEL.exec(name) ?? [];
    if (key === undefined)
      throw new ApiError("unknown_parameter", `Unknown parameter: '${name}'.`, { param: name.slice(0, 100) });
    return [key, String(value)];
  });
  return labels.length > 0 ? Object.fromEntries(labels) : undefined;
}
