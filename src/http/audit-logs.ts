import { z } from "zod";
import { type AuditRow, listAuditEvents } from "../audit/audit-log";
import type { Handler } from "./handler";
import { listToWire, seconds } from "./lists";
import { parseQuery } from "./parse";

const Ids = z.array(z.string().min(1).max(200)).max(100).optional();
const Seconds = z.coerce.number().int().min(0).optional();
const Query = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  after: z.string().min(1).max(200).optional(),
  before: z.string().min(1).max(200).optional(),
  "effective_at[gt]": Seconds,
  "effective_at[gte]": Seconds,
  "effective_at[lt]": Seconds,
  "effective_at[lte]": Seconds,
  event_types: Ids,
  project_ids: Ids,
  actor_ids: Ids,
  actor_emails: Ids,
  resource_ids: Ids,
  tenant_only: z.stringbool().default(false),
});

export const getAuditLogs: Handler = async (c) => {
  const query = parseQuery(Query, c.req.url);
  const effective = Object.fromEntries(
    (["gt", "gte", "lt", "lte"] as const).flatMap((bound) => {
      const value = query[`effective_at[${bound}]`];
      return value === undefined ? [] : [[bound, value]];
    }),
  );
  // Actors here are keys, so a filter by e-mail address matches nobody; `tenant.*` events do not exist here.
  const nobody = (query.actor_emails && !query.actor_ids) || query.tenant_only;
  const page = nobody
    ? { rows: [], hasMore: false }
    : await listAuditEvents(c.var.services, c.var.tenant, {
        limit: query.limit,
        after: query.after,
        before: query.before,
        effective,
        types: query.event_types ?? null,
        projectIds: query.project_ids ?? null,
        actorIds: query.actor_ids ?? null,
        resourceIds: query.resource_ids ?? null,
      });
  return c.json(listToWire(page, eventToWire));
};

const eventToWire = (row: AuditRow) => ({
  id: row.id,
  type: row.type,
  effective_at: seconds(row.effectiveAtMs),
  ...(row.projectId === null ? {} : { project: { id: row.projectId } }),
  actor:
    row.actorKeyId === null
      ? null
      : {
          type: "api_key" as const,
          api_key: { id: row.actorKeyId, type: "service_account" as const, service_account: { id: "operator" } },
        },
  [row.type]: { ...(row.resourceId === null ? {} : { id: row.resourceId }), ...row.details },
});
