/** The Worker under test, and objects of the product whose ports the tests hold in their hands. */
import { type BackgroundPorts, backgroundRuns } from "../../durable-objects/background-runs";
import type { BackgroundTask } from "../../durable-objects/background-runs.messages";
import { dataKeys } from "../../src/storage/sealing";
import { payloadSealing } from "../../src/tenancy/payload-sealing";

export * from "../../src/index";
export { default } from "../../src/index";

/** What the runs of one object do; by the name of the object. */
export interface Script {
  run(task: BackgroundTask, signal: AbortSignal): Promise<string | null>;
  write(task: BackgroundTask, outcome: string): Promise<void>;
  release(task: BackgroundTask): Promise<void>;
}
export const scripts = new Map<string, Script>();

const wrapping = dataKeys(new Map([[1, new Uint8Array(32).fill(7)]]));
const keys = new Map<string, Awaited<ReturnType<typeof wrapping.create>>>();
/** A gate that does nothing but keep a tenant's key. */
const keeper = payloadSealing(wrapping, (tenant) => {
  const dataKey = async () => {
    const key = keys.get(tenant.tenantId) ?? (await wrapping.create(tenant));
    keys.set(tenant.tenantId, key);
    return key;
  };
  return { dataKey } as never;
});

const scriptOf = ({ task }: BackgroundTask): Script => {
  const script = scripts.get((JSON.parse(task) as { script: string }).script);
  if (!script) throw new Error("no such script");
  return script;
};
const ports = (): BackgroundPorts => ({
  sealing: keeper,
  run: (task, signal) => scriptOf(task).run(task, signal),
  interrupted: () => "interrupted",
  write: (task, outcome) => scriptOf(task).write(task, outcome),
  release: (task) => scriptOf(task).release(task),
});
export class ScriptedRuns extends backgroundRuns(ports) {}
