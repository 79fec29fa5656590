import { and, eq, type SQL } from "drizzle-orm";
import { describe, expect, it } from "vitest";
import { sweepArtifacts } from "../../src/artifacts/sweep";
import type { StorageQuota } from "../../src/core/plans";
import { addArtifact, endArtifacts, findArtifact, rewrite } from "../../src/data/artifacts";
import {
  beginUpload,
  type FileRow,
  filesToSweep,
  findFile,
  finishUpload,
  markRemoving,
  type NewUpload,
} from "../../src/data/files";
import type { StoredKind } from "../../src/data/schema";
import { isBeyondQuota, storageUse } from "../../src/data/storage-use";
import type { RowOf, TenantData } from "../../src/data/tenant-data";
import { removeFiles, sweepFiles } from "../../src/files/sweep";
import { databasesOf, PLACES, type Place, type PlacedTenant, rowOf, tenantIn } from "./tenants";

const NOW = 1_800_000_000_000;
const DAY_MS = 86_400_000;
const QUOTA: StorageQuota = { count: 5, bytes: 1_000, endUser: { count: 2, bytes: 300 } };
const FINISHED = { filename: "f", purpose: "user_data", sha256: "", sealedKey: "", expiresAtMs: null };

const artifactOf = (data: TenantData, id: string, more: object = {}) =>
  ({
    ...rowOf("artifact", id, "x"),
    ...{ kind: "response", endUser: "", bytes: 100, expiresAtMs: NOW + DAY_MS, createdAtMs: NOW, change: null },
    ...more,
  }) as RowOf<typeof data.tables.artifact>;
const upload = (id: string, more: Partial<NewUpload> = {}): NewUpload => ({
  ...{ id, endUser: "", bytes: 100, change: `change of ${id}`, sweepAtMs: NOW + DAY_MS },
  ...more,
});
const used = async (data: TenantData, kind: StoredKind, endUser = "") => {
  const { tenant, endUser: own } = await storageUse(data, { kind, endUser });
  return { tenant: [tenant.objects, tenant.bytes], own: [own.objects, own.bytes] };
};
const refused = async (write: Promise<unknown>) => isBeyondQuota(await write.then(() => "", String));

/** Object storage that holds names, and fails or hangs as it is told. */
class FakeBytes {
  readonly held = new Set<string>();
  failures = 0;
  remove = async (_: unknown, ids: readonly string[]): Promise<void> => {
    if (this.failures > 0) {
      this.failures--;
      throw new Error("object storage is away");
    }
    for (const id of ids) this.held.delete(id);
  };
}
function portsOf(place: Place, bytes: FakeBytes) {
  const databases = databasesOf(place);
  return { data: (tenant: PlacedTenant["context"]) => databases.of(tenant), files: bytes };
}

describe.each(PLACES)("what is stored in $place", (place) => {
  it("never passes its quota, however many store at once, and the quota can be used up", async () => {
    const { data } = await tenantIn(place);
    await storageUse(data, { kind: "artifact", endUser: "" });
    const writes = await Promise.allSettled(
      Array.from({ length: 12 }, (_, n) => addArtifact(data, artifactOf(data, `a${n}`), QUOTA)),
    );
    expect(writes.filter(({ status }) => status === "fulfilled")).toHaveLength(5);
    for (const one of writes) if (one.status === "rejected") expect(isBeyondQuota(one.reason)).toBe(true);
    expect(await data.count(data.tables.artifact)).toBe(5);
    expect(await used(data, "artifact")).toMatchObject({ tenant: [5, 500] });
  });

  it("is bounded in bytes too, and an end user by a limit of its own that leaves room for the others", async () => {
    const { data } = await tenantIn(place);
    const add = (id: string, endUser: string, bytes: number) =>
      addArtifact(data, artifactOf(data, id, { endUser, bytes }), QUOTA);
    expect(await refused(add("huge", "", 1_001))).toBe(true);
    await add("1", "ann", 200);
    expect(await refused(add("2", "ann", 101))).toBe(true);
    await add("3", "ann", 100);
    expect(await refused(add("4", "ann", 0))).toBe(true);
    await add("5", "ben", 300);
    expect(await used(data, "artifact", "ann")).toEqual({ tenant: [3, 600], own: [2, 300] });
    expect(await refused(add("6", "", 401))).toBe(true);
    await add("7", "", 400);
    // What was refused has left nothing, in no counter.
    expect(await used(data, "artifact", "ben")).toEqual({ tenant: [4, 1_000], own: [1, 300] });
    expect(await data.count(data.tables.artifact)).toBe(4);
  });

  it("gives its room back once, whoever ends it, and as often as they try", async () => {
    const { data } = await tenantIn(place);
    for (const [id, endUser] of [
      ["1", "ann"],
      ["2", ""],
      ["3", ""],
    ] as const)
      await addArtifact(data, artifactOf(data, id, { endUser }), QUOTA);
    const end = (ids: readonly string[]) =>
      endArtifacts(
        data,
        ids.map((id) => ({ id, endUser: id === "1" ? "ann" : "" })),
        { change: crypto.randomUUID(), nowMs: NOW },
      );
    const ended = await Promise.all([end(["1", "2"]), end(["2", "1"]), end(["1"]), end(["2"])]);
    expect(ended.reduce((sum, count) => sum + count)).toBe(2);
    expect(await used(data, "artifact", "ann")).toEqual({ tenant: [1, 100], own: [0, 0] });
    // Nobody who stores nothing has a counter.
    const { storageUse: table } = data.tables;
    expect(await data.withDeleted().count(table, eq(table.endUser, "ann"))).toBe(0);
    const gone = await data.withDeleted().first(data.tables.artifact, eq(data.tables.artifact.id, "1"));
    expect([gone?.input, gone?.output, gone?.metadata]).toEqual([{}, {}, {}]); // what was said in it is gone at once
  });

  it("takes the room of the largest until its end is written, then its own", async () => {
    const { data } = await tenantIn(place);
    const scope = { kind: "response", endUser: null, nowMs: NOW } as const;
    await addArtifact(data, artifactOf(data, "1", { endUser: "ann", bytes: 300 }), QUOTA);
    const final = { bytes: 40, reserved: 300, change: "end" };
    const row = { id: "1", endUser: "ann", output: { text: "done" } };
    expect(await rewrite(data, scope, row, final)).toBe(true);
    await rewrite(data, scope, row, { ...final, change: "again" }); // its answer was lost
    expect(await used(data, "artifact", "ann")).toEqual({ tenant: [1, 40], own: [1, 40] });
    expect(await findArtifact(data, scope, "1")).toMatchObject({ output: { text: "done" }, bytes: 40 });
    await endArtifacts(data, [{ id: "1", endUser: "ann" }], { change: "gone", nowMs: NOW });
    expect(await used(data, "artifact", "ann")).toEqual({ tenant: [0, 0], own: [0, 0] });
  });

  it("counts what earlier versions stored", async () => {
    const { data } = await tenantIn(place);
    const { file } = data.tables;
    const old = rowOf("file", "old", "x") as RowOf<typeof file>;
    await data.batch([data.insert(file, { ...old, bytes: 70, state: "ready", sweepAtMs: null })]);
    expect(await used(data, "file")).toMatchObject({ tenant: [1, 70] });
    await markRemoving(data, [{ id: "old", endUser: "" }], { from: "ready", change: "c", nowMs: NOW });
    expect(await used(data, "file")).toMatchObject({ tenant: [0, 0] });
  });

  it("is not found once it has expired, takes no room when it is swept, and is forgotten after the retention", async () => {
    const { data } = await tenantIn(place);
    const { artifact } = data.tables;
    await addArtifact(data, artifactOf(data, "1", { expiresAtMs: NOW + 10, endUser: "ann" }), QUOTA);
    await addArtifact(data, artifactOf(data, "2", { expiresAtMs: NOW + 20 }), QUOTA);
    const found = (id: string, nowMs: number) => findArtifact(data, { kind: "response", endUser: null, nowMs }, id);
    expect(await found("1", NOW + 9)).toBeDefined();
    expect(await found("1", NOW + 10)).toBeUndefined();
    expect(await sweepArtifacts(data, NOW + 9, DAY_MS)).toBe(NOW + 10);
    expect(await sweepArtifacts(data, NOW + 10, DAY_MS)).toBe(NOW + 20);
    expect(await used(data, "artifact", "ann")).toEqual({ tenant: [1, 100], own: [0, 0] });
    expect(await data.withDeleted().count(artifact)).toBe(2);
    expect(await sweepArtifacts(data, NOW + 20, DAY_MS)).toBe(NOW + 10 + DAY_MS);
    expect(await sweepArtifacts(data, NOW + 20 + DAY_MS, DAY_MS)).toBeUndefined();
    expect(await data.withDeleted().count(artifact)).toBe(0);
  });
});

describe.each(PLACES)("a file in $place", (place) => {
  const stateOf = async (data: TenantData, id: string): Promise<FileRow["state"] | undefined> =>
    (await data.withDeleted().first(data.tables.file, eq(data.tables.file.id, id) as SQL))?.state;
  const everybody = { endUser: null, nowMs: NOW };

  it("takes room before its bytes come, is found when they are there, and takes what they take", async () => {
    const { data } = await tenantIn(place);
    await beginUpload(data, upload("1", { endUser: "ann", bytes: 250 }), QUOTA, NOW);
    expect(await findFile(data, everybody, "1")).toBeUndefined();
    expect(await used(data, "file", "ann")).toEqual({ tenant: [1, 250], own: [1, 250] });
    expect(await refused(beginUpload(data, upload("2", { endUser: "ann", bytes: 51 }), QUOTA, NOW))).toBe(true);
    expect(await stateOf(data, "2")).toBeUndefined();
    const finish = () =>
      finishUpload(data, upload("1", { endUser: "ann", bytes: 250 }), { ...FINISHED, bytes: 7 }, NOW);
    expect(await finish()).toBe(true);
    expect(await finish()).toBe(false);
    expect(await findFile(data, everybody, "1")).toMatchObject({ bytes: 7, state: "ready" });
    expect(await used(data, "file", "ann")).toEqual({ tenant: [1, 7], own: [1, 7] });
  });

  it.each([0, 1, 2])("that is deleted goes with its bytes, though object storage fails %i times", async (failures) => {
    const { data, context } = await tenantIn(place);
    const bytes = new FakeBytes();
    const ports = portsOf(place, bytes);
    bytes.held.add("1");
    await beginUpload(data, upload("1"), QUOTA, NOW);
    await finishUpload(data, upload("1"), { ...FINISHED, bytes: 100 }, NOW);
    bytes.failures = failures;
    expect(await removeFiles(ports, context, [{ id: "1", endUser: "" }], { from: "ready", nowMs: NOW })).toBe(1);
    expect(await findFile(data, everybody, "1")).toBeUndefined();
    expect(await used(data, "file")).toMatchObject({ tenant: [0, 0] }); // whether its bytes are gone or not
    for (let tries = 0; tries < failures; tries++) {
      expect(bytes.held.has("1")).toBe(true);
      await sweepFiles(ports, context, NOW + (tries + 1) * 300_000, DAY_MS); // it is due a little later
    }
    expect(bytes.held.has("1")).toBe(false);
    expect(await stateOf(data, "1")).toBe("removed");
    expect(await filesToSweep(data, Number.MAX_SAFE_INTEGER, 10)).toEqual([]);
  });

  it("whose upload was cut off is removed with its bytes by whoever sweeps, and cannot be finished afterwards", async () => {
    const { data, context } = await tenantIn(place);
    const bytes = new FakeBytes();
    const ports = portsOf(place, bytes);
    await beginUpload(data, upload("1", { sweepAtMs: NOW + 50 }), QUOTA, NOW);
    bytes.held.add("1"); // and here its Worker ended
    expect(await sweepFiles(ports, context, NOW + 49, DAY_MS)).toBe(NOW + 50);
    expect(bytes.held.has("1")).toBe(true);
    await sweepFiles(ports, context, NOW + 50, DAY_MS);
    expect(bytes.held.has("1")).toBe(false);
    expect(await finishUpload(data, upload("1"), { ...FINISHED, bytes: 1 }, NOW)).toBe(false);
    expect(await used(data, "file")).toMatchObject({ tenant: [0, 0] });
  });

  it("that expired is removed though nobody comes back, and its row after the retention, behind its bytes", async () => {
    const { data, context } = await tenantIn(place);
    const bytes = new FakeBytes();
    const ports = portsOf(place, bytes);
    bytes.held.add("1");
    await beginUpload(data, upload("1"), QUOTA, NOW);
    await finishUpload(data, upload("1"), { ...FINISHED, bytes: 100, expiresAtMs: NOW + 10 }, NOW);
    expect(await sweepFiles(ports, context, NOW + 9, DAY_MS)).toBe(NOW + 10);
    bytes.failures = 1;
    await sweepFiles(ports, context, NOW + 10, DAY_MS);
    expect(await used(data, "file")).toMatchObject({ tenant: [0, 0] });
    expect(await stateOf(data, "1")).toBe("removing");
    // However old the row is: it stays until its bytes are gone.
    await data.batch([
      data.withDeleted().update(data.tables.file, { deletedAtMs: 1 }, and(eq(data.tables.file.id, "1")) as SQL),
    ]);
    bytes.failures = 1;
    const late = NOW + 10 * DAY_MS;
    await sweepFiles(ports, context, late, DAY_MS).catch(() => {});
    expect(await stateOf(data, "1")).toBe("removing");
    await sweepFiles(ports, context, late + DAY_MS, DAY_MS);
    expect(bytes.held.has("1")).toBe(false);
    await sweepFiles(ports, context, late + 2 * DAY_MS, DAY_MS);
    expect(await stateOf(data, "1")).toBeUndefined();
  });
});
