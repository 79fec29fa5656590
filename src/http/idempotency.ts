import { createHash } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { keepsNothing } from "../core/policy";
import { ApiError } from "../errors";
import { type Claim, type ClaimReply, claimKey, type KeptReply, MAX_REPLY_BYTES } from "../tenancy/idempotency";
import { formDigest } from "./form-digest";
import type { AppContext, AppEnv } from "./handler";
import { joined, readBytes } from "./json-body";
import { DEFAULT_PATIENCE_MS } from "./model-call";
import type { Route } from "./route";

export const HEADER = "idempotency-key";
/** How long a duplicate waits for the first. */
const PATIENCE_MS = 25_000;
/** A call may wait for its tenant's slot and then for its model's, before its deadline begins. */
const MAX_WAITS_MS = 2 * DEFAULT_PATIENCE_MS;
const KEPT_HEADERS = ["content-type", "x-audit", "x-max-output-tokens"];

/**
 * `Idempotency-Key` on every POST: of requests with the same key and the same body one does the work, and the others
 * get its reply, for 24 hours. Keys belong to the tenant, those of an end user to that end user. A request that came
 * to nothing (an error, a client that left) leaves nothing: the next one with its key does the work.
 */
export const idempotent: MiddlewareHandler<AppEnv> = async (c, next) => {
  const key = c.req.header(HEADER);
  if (key === undefined || c.req.method !== "POST" || c.var.route.scope === "public") return next();
  if (!/^[\x21-\x7e]{1,255}$/.test(key)) {
    const message = "'Idempotency-Key' must be 1 to 255 printable characters without spaces; a UUID is a good one.";
    throw new ApiError("invalid_value", message, { param: HEADER });
  }
  const { services, tenant, requestId } = c.var;
  const digests = { key: keyDigest(c, key), body: await bodyDigest(c) };
  const times = { patienceMs: PATIENCE_MS, holdMs: services.pipeline.requestDeadlineMs + MAX_WAITS_MS };
  const claim = await claimKey(services.idempotency, tenant, { ...digests, requestId, ...times });
  if ("state" in claim) {
    if ("content" in claim && claim.content !== null && claim.content !== (await formDigest(c.req.raw))) throw reused();
    return replay(claim, c.var.route);
  }
  await next();
  const { res } = c;
  if (res.status >= 400 || !res.body) return claim.release();
  const { showsSecret } = c.var.route;
  const replyOf = (bytes: Uint8Array) =>
    keepsNothing(c.var.policy)
      ? null
      : replyWith(res, showsSecret ? new TextEncoder().encode(JSON.stringify(namesIn(bytes))) : bytes);
  c.res = new Response(recorded(res.body, replyOf, claim, c.var.ending), res);
};

/** The same bytes to the caller; their end waits until they are kept. */
function recorded(
  body: ReadableStream<Uint8Array>,
  replyOf: (bytes: Uint8Array) => KeptReply | null,
  { keep, release }: Claim,
  ending: { readonly failed: boolean; readonly formDigest: string | null },
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) {
          size += value.byteLength;
          if (size <= MAX_REPLY_BYTES) chunks.push(value);
          else chunks.length = 0;
          return controller.enqueue(value);
        }
        if (ending.failed) await release();
        else await keep(size <= MAX_REPLY_BYTES ? replyOf(joined(chunks, size)) : null, ending.formDigest);
        controller.close();
      } catch (error) {
        await release();
        controller.error(error);
      }
    },
    async cancel(reason) {
      await Promise.all([reader.cancel(reason), release()]);
    },
  });
}

function replyWith({ status, headers }: Response, bytes: Uint8Array): KeptReply {
  const kept = KEPT_HEADERS.flatMap((name): [string, string][] => {
    const value = headers.get(name);
    return value === null ? [] : [[name, value]];
  });
  return { status, headers: kept, body: new Uint8Array(bytes) };
}

/** What is kept of a reply that shows a secret: what its maker needs to find, and to delete, what was made. */
function namesIn(bytes: Uint8Array): Record<string, string> {
  const { id, api_key, api_key_id, subject } = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  const names = { id, api_key_id: api_key_id ?? (api_key as { id?: unknown } | null | undefined)?.id, subject };
  return Object.fromEntries(
    Object.entries(names).filter((name): name is [string, string] => typeof name[1] === "string"),
  );
}

function replay(claimed: Exclude<ClaimReply, { state: "claimed" }>, { showsSecret }: Route): Response {
  const refused = (code: "idempotency_in_progress" | "idempotency_not_kept", why: string, more = {}) =>
    new ApiError(code, why, { param: HEADER, headers: code === "idempotency_in_progress" ? RETRY : NO_RETRY, more });
  switch (claimed.state) {
    case "kept": {
      const { status, headers, body } = claimed.reply;
      if (showsSecret) throw refused("idempotency_not_kept", SECRET_SHOWN, { made: namesIn(body) });
      return new Response(new Uint8Array(body), { status, headers: [...headers, ["idempotent-replayed", "true"]] });
    }
    case "done":
      throw refused("idempotency_not_kept", "This request was done already, and its reply was not kept.");
    case "reused":
      throw reused();
    case "running":
      throw refused("idempotency_in_progress", "A request with this 'Idempotency-Key' is still running. Ask again.");
  }
}
const reused = () =>
  new ApiError("idempotency_key_reused", "This 'Idempotency-Key' was used for another request; take a new one.", {
    param: HEADER,
  });
const RETRY = { "retry-after": "1" };
/** The official clients try a 409 again by themselves. */
const NO_RETRY = { "x-should-retry": "false" };

const SECRET_SHOWN =
  "This was made already; its secret is shown once and kept nowhere. 'made' says what it is: if you have not got its secret, delete it, where it can be deleted, and ask again with a new 'Idempotency-Key'.";

/** Nobody finds another one's reply by its key: an end user's keys are its own. */
function keyDigest({ var: { tenant } }: AppContext, key: string): string {
  const { actor } = tenant;
  return digestOf(JSON.stringify([actor.type === "end_user" ? ["end_user", actor.subject] : ["tenant"], key]));
}

/**
 * Of what is asked: where, and with which bytes, whatever type they are said to have. Where the route reads a form,
 * nothing is held in memory for it: the form's own digest is compared once it is read.
 */
async function bodyDigest(c: AppContext): Promise<string> {
  const { pathname, search } = new URL(c.req.url);
  if (c.var.route.readsForm) return digestOf(`${pathname}${search}\n`);
  const bytes = await readBytes(c.req.raw.clone());
  return digestOf(`${pathname}${search}\n`, bytes);
}

function digestOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}
