import { z } from "zod";
import { retrieveRetention, setRetention } from "../tenancy/retention";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { parse } from "./parse";
import { projectId } from "./projects";

const Body = z.strictObject({ days: z.int().min(1).max(3_650) });

export const getRetention: Handler = async (c) => {
  const id = projectId(c);
  return c.json(retentionToWire(id, await retrieveRetention(c.var.services, c.var.tenant, id)));
};

export const postRetention: Handler = async (c) => {
  const id = projectId(c);
  const { days } = parse(Body, await readJson(c.req.raw));
  return c.json(retentionToWire(id, await setRetention(c.var.services, c.var.tenant, id, days)));
};

const retentionToWire = (id: string, days: number) => ({
  object: "tenantry.project.retention" as const,
  project_id: id,
  days,
});
