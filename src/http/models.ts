import type { Model } from "../inference/catalogue";
import { isCallable, modelNotFound } from "../pipeline/resolve-model";
import type { AppContext, Handler } from "./handler";

/** Models of the catalogue that this caller may call; nobody learns what else exists. */
function callable(c: AppContext): Model[] {
  const { policy, tenant, services } = c.var;
  const caller = { context: tenant, policy };
  return services.pipeline.catalogue.models.filter(
    (model) => model.regions.includes(tenant.region) && isCallable(caller, model),
  );
}

export const listModels: Handler = (c) => {
  const data = callable(c).flatMap((model) => [model.name, ...model.aliases].map((name) => modelToWire(model, name)));
  return c.json({ object: "list", data });
};

export const getModel: Handler = (c) => {
  const name = c.req.param("model") ?? "";
  const model = callable(c).find((known) => known.name === name || known.aliases.includes(name));
  if (!model) throw modelNotFound(name);
  return c.json(modelToWire(model, name));
};

const modelToWire = (model: Model, id: string) => ({
  id,
  object: "model",
  created: model.createdSeconds,
  owned_by: model.ownedBy,
});
