import { z } from "zod";
import { ISOLATIONS } from "../core/policy";
import { type ProjectIsolation, retrieveIsolation, setIsolation } from "../tenancy/isolation";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { parse } from "./parse";
import { projectId } from "./projects";

const Body = z.strictObject({ isolation: z.enum(ISOLATIONS) });

export const getIsolation: Handler = async (c) => {
  const id = projectId(c);
  return c.json(isolationToWire(id, await retrieveIsolation(c.var.services, c.var.tenant, id)));
};

export const postIsolation: Handler = async (c) => {
  const id = projectId(c);
  const { isolation } = parse(Body, await readJson(c.req.raw));
  return c.json(isolationToWire(id, await setIsolation(c.var.services, c.var.tenant, id, isolation)));
};

const isolationToWire = (id: string, { isolation, offered }: ProjectIsolation) => ({
  object: "tenantry.project.isolation" as const,
  project_id: id,
  isolation,
  offered,
});
