import { z } from "zod";
import { DATA_RETENTIONS, type DataRetention } from "../core/policy";
import { retrieveDataRetention, setDataRetention } from "../tenancy/retention";
import type { Handler } from "./handler";
import { readJson } from "./json-body";
import { parse } from "./parse";
import { projectId } from "./projects";

const Body = z.strictObject({ retention_type: z.enum(DATA_RETENTIONS) });

export const getDataRetention: Handler = async (c) =>
  c.json(toWire(await retrieveDataRetention(c.var.services, c.var.tenant, projectId(c))));

export const postDataRetention: Handler = async (c) => {
  const { retention_type } = parse(Body, await readJson(c.req.raw));
  return c.json(toWire(await setDataRetention(c.var.services, c.var.tenant, projectId(c), retention_type)));
};

const toWire = (type: DataRetention) => ({ object: "project.data_retention" as const, type });
