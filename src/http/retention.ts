import { z } from "zod";
import { type Retention, retrieveRetention, setRetention } from "../tenancy/retention";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { parse } from "./parse";
import { projectId } from "./projects";

const Days = z.int().min(1).max(3_650);
const Body = z
  .strictObject({ days: Days.optional(), artifact_days: Days.optional() })
  .refine((body) => Object.keys(body).length > 0, { path: ["days"], message: "one of days, artifact_days is needed" });

export const getRetention: Handler = async (c) => {
  const id = projectId(c);
  return c.json(retentionToWire(id, await retrieveRetention(c.var.services, c.var.tenant, id)));
};

export const postRetention: Handler = async (c) => {
  const id = projectId(c);
  const { days, artifact_days } = parse(Body, await readJson(c.req.raw));
  const asked = { retentionDays: days, artifactDays: artifact_days };
  return c.json(retentionToWire(id, await setRetention(c.var.services, c.var.tenant, id, asked)));
};

const retentionToWire = (id: string, { retentionDays, artifactDays }: Retention) => ({
  object: "tenantry.project.retention" as const,
  project_id: id,
  days: retentionDays,
  artifact_days: artifactDays,
});
