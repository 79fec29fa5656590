import { type ArtifactRow, lookUpArtifact, retrieveConversation } from "../artifacts/artifacts";
import { ApiError } from "../errors";
import type { TenantContext } from "../tenancy/context";
import type { TenancyPorts } from "../tenancy/ports";
import { type InputItem, isReference, type SaidItem } from "./response-items";
import type { WireResponse } from "./response-reply";

/** Turns of a conversation that a new one can go on from. */
const MAX_TURNS = 200;

/** What is stored of a response's input. */
export interface StoredInput {
  readonly items: readonly SaidItem[];
}
export const inputOf = (row: ArtifactRow) => row.input as StoredInput;
export const responseOf = (row: ArtifactRow) => ({ ...(row.output as WireResponse), metadata: row.metadata });

/**
 * An item's id says which response it belongs to, so that it can be referred to without an index of its own:
 * the response's own random part, `i` for what went in, and its place.
 */
export const outputItemId = (responseId: string, prefix: "msg" | "rs" | "fc", index: number) =>
  `${prefix}_${partOf(responseId)}${placeOf(index)}`;
export const inputItemId = (responseId: string, index: number) => `msg_${partOf(responseId)}i${placeOf(index)}`;
const partOf = (responseId: string) => responseId.slice("resp_".length);
const placeOf = (index: number) => index.toString(16).padStart(3, "0");
const ITEM_ID = /^[a-z]+_([A-Za-z0-9_-]{24})(i?)([0-9a-f]{3,4})$/;

/** What was said before a response, and the conversation that it belongs to. */
export async function earlierItems(
  ports: TenancyPorts,
  tenant: TenantContext,
  previousId: string,
): Promise<{ readonly items: readonly SaidItem[]; readonly rootId: string }> {
  const last = await lookUpArtifact(ports, tenant, "response", previousId);
  if (!last) throw previousNotFound(previousId);
  const isFirst = last.rootId === last.id;
  const rows = isFirst ? [last] : await retrieveConversation(ports, tenant, "response", last.rootId, MAX_TURNS);
  const byId = new Map(rows.map((row) => [row.id, row]));
  const turns: ArtifactRow[] = [];
  for (let id: string | null = previousId; id !== null; ) {
    const row = byId.get(id);
    if (!row) throw previousNotFound(id);
    turns.unshift(row);
    id = responseOf(row).previous_response_id;
  }
  return { items: turns.flatMap((row) => [...inputOf(row).items, ...saidBy(row)]), rootId: last.rootId };
}

/** Puts items in the place of what refers to them. @throws ApiError 404 that names the reference */
export async function resolveReferences(
  ports: TenancyPorts,
  tenant: TenantContext,
  written: readonly InputItem[],
): Promise<SaidItem[]> {
  const rows = new Map<string, Promise<ArtifactRow | undefined>>();
  const rowOf = (id: string) => {
    const found = rows.get(id) ?? lookUpArtifact(ports, tenant, "response", id);
    rows.set(id, found);
    return found;
  };
  return Promise.all(
    written.map(async (item, index) => {
      if (!isReference(item)) return item;
      const [, part, input, place = ""] = ITEM_ID.exec(item.id) ?? [];
      const row = part === undefined ? undefined : await rowOf(`resp_${part}`);
      const from = row && (input ? inputOf(row).items : saidBy(row));
      const found = from?.[Number.parseInt(place, 16)];
      if (!found) {
        const message = `No item with the id '${item.id}' was found; only items of stored responses can be referred to.`;
        throw new ApiError("not_found", message, { param: `input[${index}].id` });
      }
      return found;
    }),
  );
}

const saidBy = (row: ArtifactRow) => responseOf(row).output as unknown as readonly SaidItem[];

const previousNotFound = (id: string) =>
  new ApiError("previous_response_not_found", `No previous response with the id '${id.slice(0, 200)}' was found.`, {
    param: "previous_response_id",
  });
