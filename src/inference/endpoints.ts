import type { ListedEndpoint, ModelDispatcherRpc } from "../../durable-objects/model-dispatcher.messages";
import { ApiError } from "../errors";
import type { Region } from "../tenancy/context";
import type { Model, ModelCatalogue } from "./catalogue";

export type { ListedEndpoint } from "../../durable-objects/model-dispatcher.messages";

/** What the operator's services of scarce models need. */
export interface EndpointPorts {
  readonly catalogue: ModelCatalogue;
  readonly dispatcher: (region: Region, model: Model) => ModelDispatcherRpc;
}

/** A scarce model by the name or alias that stands in a path. @throws ApiError 404, or 400 for one without a dispatcher */
function scarceModel({ catalogue }: EndpointPorts, name: string): Model {
  const model = catalogue.find(name);
  if (!model) throw new ApiError("not_found", `No model found with id '${name}'.`, { param: "model" });
  if (model.maxInFlight !== null) return model;
  const message = `'${name}' is not shared by a dispatcher: give it max_in_flight in the model catalogue.`;
  throw new ApiError("invalid_value", message, { param: "model" });
}

/** How busy a scarce model is in a region, and where it runs there: what an autoscaler of its machines follows. */
export async function readEndpoints(ports: EndpointPorts, name: string, region: Region) {
  const dispatcher = ports.dispatcher(region, scarceModel(ports, name));
  const [endpoints, metrics] = await Promise.all([dispatcher.listEndpoints(), dispatcher.metrics()]);
  return { endpoints, metrics };
}

export async function addEndpoint(
  ports: EndpointPorts,
  name: string,
  region: Region,
  spec: { readonly id: string; readonly url: string; readonly maxInFlight: number },
): Promise<ListedEndpoint> {
  const model = scarceModel(ports, name);
  if (model.provider !== "openai-compatible") {
    throw new ApiError("invalid_value", `'${name}' runs on Workers AI, which has no endpoints.`, { param: "model" });
  }
  const dispatcher = ports.dispatcher(region, model);
  await dispatcher.addEndpoint(spec);
  const added = (await dispatcher.listEndpoints()).find(({ id }) => id === spec.id);
  return added ?? endpointNotFound(spec.id);
}

export async function removeEndpoint(ports: EndpointPorts, name: string, region: Region, id: string): Promise<void> {
  const isRemoved = await ports.dispatcher(region, scarceModel(ports, name)).removeEndpoint(id);
  if (!isRemoved) endpointNotFound(id);
}

function endpointNotFound(id: string): never {
  throw new ApiError("not_found", `No endpoint found with id '${id}'.`, { param: "endpoint_id" });
}
