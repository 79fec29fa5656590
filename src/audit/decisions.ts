import type { JournalPage, JournalQuery, JournalRow } from "../../durable-objects/tenant-gate.messages";
import type { TenantContext } from "../tenancy/context";
import { askGate } from "../tenancy/gates";
import type { TenancyPorts } from "../tenancy/ports";

export type DecisionQuery = JournalQuery;
export type DecisionRow = JournalRow;

/** Every decision the platform made for a tenant; no database holds them, its gate answers. */
export function listDecisions(ports: TenancyPorts, tenant: TenantContext, query: DecisionQuery): Promise<JournalPage> {
  const gate = ports.gate(tenant);
  return askGate(() => gate.decisions(query), "storage_unavailable");
}
