import { z } from "zod";
import { addEndpoint, type ListedEndpoint, readEndpoints, removeEndpoint } from "../inference/endpoints";
import { newId } from "../tenancy/ids";
import type { AppContext, Handler } from "./handler";
import { readJson } from "./json-body";
import { parse, parseQuery } from "./parse";

const Region = z.enum(["global", "eu", "us"]).default("global");
const Query = z.strictObject({ region: Region });
const Body = z.strictObject({
  /** Without it the endpoint gets one; with it the endpoint of that id is changed. */
  id: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/, "takes letters, digits, - and _")
    .optional(),
  /** Up to and including `/v1`. */
  url: z.url({ protocol: /^https?$/ }).max(2_000),
  max_in_flight: z.int().min(1).max(100_000),
  region: Region,
});

const modelName = (c: AppContext): string => c.req.param("model") ?? "";

export const getEndpoints: Handler = async (c) => {
  const { region } = parseQuery(Query, c.req.url);
  const { endpoints, metrics } = await readEndpoints(c.var.services.pipeline, modelName(c), region);
  return c.json({
    object: "list",
    data: endpoints.map(endpointToWire),
    queue_depth: metrics.queueDepth,
    oldest_wait_ms: metrics.oldestWaitMs,
    in_flight: metrics.inFlight,
  });
};

export const postEndpoint: Handler = async (c) => {
  const { id, url, max_in_flight, region } = parse(Body, await readJson(c.req.raw));
  const spec = { id: id ?? newId("endpoint"), url, maxInFlight: max_in_flight };
  return c.json(endpointToWire(await addEndpoint(c.var.services.pipeline, modelName(c), region, spec)));
};

export const deleteEndpoint: Handler = async (c) => {
  const { region } = parseQuery(Query, c.req.url);
  const id = c.req.param("endpoint_id") ?? "";
  await removeEndpoint(c.var.services.pipeline, modelName(c), region, id);
  return c.json({ object: "tenantry.endpoint.deleted", id, deleted: true });
};

const endpointToWire = ({ id, url, maxInFlight, addedAtMs, state, inFlight, failures }: ListedEndpoint) => ({
  object: "tenantry.endpoint" as const,
  ...{ id, url, state, failures },
  max_in_flight: maxInFlight,
  in_flight: inFlight,
  added_at: Math.floor(addedAtMs / 1000),
});
