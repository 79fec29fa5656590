import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { objectsOf } from "../../src/tenancy/gates";

/** What every object that can be erased answers. */
interface Erasable {
  countRows(): Promise<number>;
  erase(): Promise<void>;
}
const newTenant = () => ({ tenantId: `proj_${crypto.randomUUID()}`, region: "global" }) as const;
const claim = { body: "b".repeat(64), patienceMs: 0, holdMs: 60_000 };

/** Each with something in it that is gone after its erasure. */
const OBJECTS = [
  {
    name: "TenantGate",
    namespace: env.TENANT_GATE,
    fill: (object: object) =>
      (object as { change(request: object): Promise<unknown> }).change({
        command: { type: "create_tenant", name: "Test", residency: "GLOBAL", externalKeyId: null },
        ...{ actorKeyId: null, auditId: crypto.randomUUID() },
      }),
    left: (object: object) => (object as { policy(): Promise<unknown> }).policy(),
    none: null,
  },
  {
    name: "IdempotencyStore",
    namespace: env.IDEMPOTENCY_STORE,
    fill: (object: object) =>
      (object as { claim(request: object): Promise<unknown> }).claim({
        ...{ ...claim, key: "a".repeat(64), requestId: "r1" },
      }),
    left: (object: object) => (object as Erasable).countRows(),
    none: 0,
  },
  {
    name: "BackgroundRuns",
    namespace: env.BACKGROUND_RUNS,
    fill: async () => {},
    left: (object: object) => (object as Erasable).countRows(),
    none: 0,
  },
  {
    name: "TenantDatabase",
    namespace: env.TENANT_DATABASE,
    fill: async () => {},
    left: (object: object) => (object as Erasable).countRows(),
    none: 0,
  },
];

describe.each(OBJECTS)("$name, while it is erased", ({ namespace, fill, left, none }) => {
  it("answers every call, as it was before or as one that was never made, and afterwards as the latter", async () => {
    for (let round = 0; round < 10; round++) {
      const location = newTenant();
      const object = objectsOf<Erasable>(namespace as unknown as DurableObjectNamespace, "off")(location);
      await fill(object);
      const answers: Promise<unknown>[] = [];
      for (let call = 0; call < 40; call++) {
        answers.push(call === 13 || call === 27 ? object.erase() : left(object)); // a purge that is repeated
        if (call % 3 === 0) await Promise.resolve();
      }
      const settled = await Promise.allSettled(answers);
      expect(settled.filter(({ status }) => status === "rejected")).toEqual([]);
      for (let call = 0; call < 5; call++) expect(await left(object)).toEqual(none);
    }
  });
});
