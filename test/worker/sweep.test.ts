import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import type { PolicySnapshot } from "../../src/core/policy";
import { deleteFile, uploadFile } from "../../src/files/files";
import { servicesOf } from "../../src/services";
import { enterAsJob } from "../../src/tenancy/jobs";
import { freshGate } from "./gate";

const HOUR_MS = 3_600_000;

/** A tenant with its gate, its files and a source of bytes. */
async function freshFiles() {
  const fresh = await freshGate();
  const services = servicesOf(env);
  const tenant = enterAsJob({ tenantId: fresh.tenantId, region: "global", isolation: "pool" }, "test");
  const policy = (await fresh.gate.policy()) as PolicySnapshot;
  const label = (expiresAfterSeconds?: number) => async () =>
    ({ filename: "f", purpose: "user_data", expiresAfterSeconds }) as const;
  async function* bytes() {
    yield new Uint8Array([1, 2, 3]);
  }
  const upload = (ports = services, expiresAfterSeconds?: number) =>
    uploadFile(ports, tenant, policy, { content: bytes(), formBytes: 1_000 }, label(expiresAfterSeconds));
  const objects = async () => (await env.ARTIFACTS.list({ prefix: `global/${fresh.tenantId}/files/` })).objects.length;
  const rows = () =>
    env.DB.prepare("select id, state, deleted_at, sweep_at, expires_at from file where tenant_id = ?")
      .bind(fresh.tenantId)
      .all<{ id: string; state: string; expires_at: number | null }>()
      .then(({ results }) => results);
  const used = async () =>
    (await env.DB.prepare("select objects, bytes from storage_use where tenant_id = ? and end_user = ''")
      .bind(fresh.tenantId)
      .first<{ objects: number; bytes: number }>()) ?? { objects: 0, bytes: 0 };
  /** The tenant's own alarm, and nobody else, comes by; the tenant never does. */
  const alarm = async () => {
    const due = await runInDurableObject(fresh.stub, (_, { storage: { sql } }) => {
      const [row] = sql.exec<{ due_at: number }>("select due_at from due where kind = 'sweep'").toArray();
      sql.exec("update due set due_at = 1 where kind = 'sweep'");
      return row?.due_at;
    });
    await evictDurableObject(fresh.stub);
    await runDurableObjectAlarm(fresh.stub);
    return due;
  };
  return { ...fresh, services, tenant, upload, objects, rows, used, alarm };
}

describe("what a tenant leaves behind", () => {
  it("is swept by its gate's own alarm: an expired file goes with its bytes, and the alarm comes when it is due", async () => {
    const { upload, objects, rows, used, alarm, tenantId } = await freshFiles();
    await upload(undefined, 3_600);
    await upload();
    const due = (await alarm()) ?? 0;
    expect(due).toBeGreaterThan(Date.now());
    expect(due).toBeLessThanOrEqual(Date.now() + HOUR_MS);
    expect([await objects(), await used()]).toEqual([2, { objects: 2, bytes: 6 }]);
    await env.DB.prepare("update file set expires_at = 1 where tenant_id = ? and expires_at is not null")
      .bind(tenantId)
      .run();
    await alarm();
    expect([await objects(), await used()]).toEqual([1, { objects: 1, bytes: 3 }]);
    expect((await rows()).map(({ state }) => state).sort()).toEqual(["ready", "removed"]);
  });

  it.each(["fails", "stores, and its answer is lost"])(
    "of an upload is nothing where object storage %s, at once or by the alarm",
    async (fault) => {
      const { services, upload, objects, rows, used, alarm, tenantId } = await freshFiles();
      let removals = 0;
      const files: typeof services.files = {
        ...services.files,
        async put(...args) {
          if (fault !== "fails") await services.files.put(...args);
          throw new Error("object storage is away");
        },
        async remove() {
          removals++;
          throw new Error("object storage is away");
        },
      };
      await expect(upload({ ...services, files })).rejects.toThrow(/away/);
      expect(removals).toBe(1);
      expect(await used()).toMatchObject({ objects: 0, bytes: 0 });
      expect(await rows()).toMatchObject([{ state: "removing" }]);
      await env.DB.prepare("update file set sweep_at = 1 where tenant_id = ?").bind(tenantId).run();
      await alarm();
      expect(await objects()).toBe(0);
      expect(await rows()).toMatchObject([{ state: "removed" }]);
    },
  );

  it("of a deleted file is removed by the alarm, though no sweep was due and object storage did not answer", async () => {
    const { services, upload, objects, rows, alarm, tenantId, tenant, stub } = await freshFiles();
    const { id } = await upload();
    await runInDurableObject(stub, (_, { storage: { sql } }) => void sql.exec("update due set due_at = 1"));
    await alarm();
    const due = () =>
      runInDurableObject(stub, (_, { storage: { sql } }) =>
        sql.exec("select * from due where kind = 'sweep'").toArray(),
      );
    expect(await due()).toEqual([]); // a file for ever: nothing to do
    const files = { ...services.files, remove: () => Promise.reject(new Error("object storage is away")) };
    await deleteFile({ ...services, files }, tenant, id);
    expect([await objects(), await rows()]).toMatchObject([1, [{ state: "removing" }]]);
    await env.DB.prepare("update file set sweep_at = 1 where tenant_id = ?").bind(tenantId).run();
    await alarm();
    expect([await objects(), await rows()]).toMatchObject([0, [{ state: "removed" }]]);
  });

  it("of an upload whose Worker ended behind the bytes is removed by the alarm, and its room is free", async () => {
    const { services, upload, objects, rows, used, alarm, tenantId } = await freshFiles();
    const ended = Promise.withResolvers<void>();
    const files: typeof services.files = {
      ...services.files,
      async put(...args) {
        await services.files.put(...args);
        ended.resolve();
        return new Promise(() => {}); // nothing comes after this
      },
    };
    void upload({ ...services, files });
    await ended.promise;
    expect([await objects(), (await rows())[0]?.state, (await used()).objects]).toEqual([1, "uploading", 1]);
    await alarm();
    expect(await objects()).toBe(1); // it may be on its way still
    await env.DB.prepare("update file set sweep_at = 1 where tenant_id = ?").bind(tenantId).run();
    await alarm();
    expect([await objects(), (await rows())[0]?.state]).toEqual([0, "removed"]);
    expect(await used()).toEqual({ objects: 0, bytes: 0 });
  });

  it("is looked for within a day of any call, since its answer may have been stored", async () => {
    const { admit, finish, stub } = await freshGate();
    await admit("r1");
    await finish("r1");
    const due = await runInDurableObject(stub, (_, { storage: { sql } }) =>
      sql.exec<{ due_at: number }>("select due_at from due where kind = 'sweep'").toArray(),
    );
    expect(due).toHaveLength(1);
    expect(due[0]?.due_at).toBeLessThanOrEqual(Date.now() + 24 * HOUR_MS);
  });
});
