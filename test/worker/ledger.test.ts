import { eq } from "drizzle-orm";
import { describe, expect, it } from "vitest";
import type { HourlyUsage } from "../../durable-objects/tenant-gate.messages";
import { NO_ESTIMATES } from "../../src/core/reconciliation";
import { allRollups, ledger } from "../../src/data/ledger";
import { enterPlatformAsJob } from "../../src/tenancy/jobs";
import { databasesOf, PLACES, tenantIn } from "./tenants";

const HOUR_MS = 3_600_000;
const hour = (requests: number, more: Partial<HourlyUsage> = {}): HourlyUsage => ({
  hourMs: HOUR_MS,
  kind: "completions",
  model: "m",
  keyId: "key",
  serviceTier: "default",
  batch: false,
  endUser: null,
  requests,
  inputTokens: requests * 5,
  cachedTokens: 0,
  outputTokens: requests * 7,
  priceMicrodollars: requests * 11,
  costMicrodollars: requests * 3,
  minutes: { 0: [requests, requests * 5, 0, requests * 7] },
  estimates: NO_ESTIMATES,
  ...more,
});

describe.each(PLACES)("the ledger of a tenant in $place", (place) => {
  const setup = async () => {
    const { context, data } = await tenantIn(place);
    const home = { ...context, isolation: place.isolation };
    const platform = databasesOf(place).of(enterPlatformAsJob("test"));
    const books = ledger({ data: () => data, platformData: () => platform });
    const write = (usage: readonly HourlyUsage[], lastUsedMs: Record<string, number> = {}) =>
      books.write(home, usage, lastUsedMs, Date.now());
    const rows = async () => {
      const all = [];
      const filter = { kind: "completions" as const, fromMs: 0, toMs: 10 * HOUR_MS, projectIds: [context.tenantId] };
      for await (const row of allRollups(platform, filter)) all.push(row);
      return all;
    };
    return { data, write, rows };
  };

  it("takes absolute numbers: twice is once, and an earlier write that arrives late takes nothing back", async () => {
    const { write, rows } = await setup();
    await write([hour(2)]);
    await write([hour(5)]);
    await write([hour(5)]);
    await write([hour(2)]); // sent before the others
    expect(await rows()).toMatchObject([
      { requests: 5, inputTokens: 25, priceMicrodollars: 55, minutes: { 0: [5, 25, 0, 35] } },
    ]);
    await write([hour(6, { priceMicrodollars: 1 })]);
    expect(await rows()).toMatchObject([{ requests: 6, priceMicrodollars: 1 }]);
  });

  it("has a row for each end user, and for each of more hours than one batch takes", async () => {
    const { write, rows } = await setup();
    const users = Array.from({ length: 230 }, (_, index) => hour(index + 1, { endUser: `user-${index}` }));
    await write([hour(1_000), ...users]);
    const written = await rows();
    expect(written).toHaveLength(231);
    expect(written.find(({ endUser }) => endUser === "user-229")?.requests).toBe(230);
    expect(written.find(({ endUser }) => endUser === null)?.requests).toBe(1_000);
  });

  it("marks last uses of keys, never earlier than they are marked already, and of other keys none", async () => {
    const { data, write } = await setup();
    const { apiKey } = data.tables;
    for (const id of ["key", "other"]) {
      const row = { id, hash: id, name: id, redactedValue: "…", serviceAccountId: null, scopes: ["data"] };
      await data.batch([data.insert(apiKey, { ...row, createdAtMs: 1, updatedAtMs: 1 } as never)]);
    }
    const lastUsed = async (id: string) => (await data.first(apiKey, eq(apiKey.id, id)))?.lastUsedAtMs;
    await write([], { key: 500 });
    expect(await lastUsed("key")).toBe(500);
    await write([], { key: 900 });
    await write([], { key: 500 });
    expect(await lastUsed("key")).toBe(900);
    expect(await lastUsed("other")).toBeNull();
  });
});
