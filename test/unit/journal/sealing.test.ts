import { describe, expect, it } from "vitest";
import { bytesOf, SEGMENT_LIMITS } from "../../../durable-objects/journal-tail";
import { verifyChain } from "../../../src/core/hash-chain";
import { DECISION, HOME, SMALL, sha256, TestGate } from "./gate";

const DAY_MS = 86_400_000;
const YOUNG_MS = SMALL.youngMs;

/** A gate with so many records, one each second from 1 s on. */
function gateWith(records: number, limits = SMALL): TestGate {
  const gate = new TestGate(limits);
  for (let record = 1; record <= records; record++) gate.append(`r${record}`, record * 1_000);
  return gate;
}
const tailOf = (gate: TestGate) => gate.sql.journalFrom(0, 1_000).map(({ seq }) => seq);
const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

describe("sealing", () => {
  it("goes on until nothing is due, and says when something will be", async () => {
    const gate = gateWith(13);
    expect(await gate.segments.sealDue(2 * YOUNG_MS)).toBe(11_000 + SMALL.ageMs);
    expect(gate.store.puts.map(({ firstSeq, lastSeq }) => [firstSeq, lastSeq])).toEqual([
      [1, 5],
      [6, 10],
    ]);
    expect(tailOf(gate)).toEqual([11, 12, 13]);
    expect(await gate.segments.sealDue(10_999 + SMALL.ageMs)).toBe(11_000 + SMALL.ageMs);
    expect(tailOf(gate)).toEqual([11, 12, 13]);
    expect(await gate.segments.sealDue(11_000 + SMALL.ageMs)).toBeUndefined();
    expect(tailOf(gate)).toEqual([]);
  });

  it("is due at once again where one turn was not enough", async () => {
    const gate = gateWith(100);
    expect(await gate.segments.sealDue(DAY_MS)).toBe(DAY_MS);
    expect(tailOf(gate)).toEqual(numbers(81, 100));
    await gate.segments.sealDue(DAY_MS);
    expect(tailOf(gate)).toEqual([]);
  });

  it("leaves young rows, and looks again when the run that is full is old enough", async () => {
    const gate = gateWith(7);
    const dueMs = 5_000 + YOUNG_MS; // when the fifth row is no longer young
    expect(await gate.segments.sealDue(8_000)).toBe(dueMs);
    expect(await gate.segments.sealDue(dueMs - 1)).toBe(dueMs);
    expect(gate.store.puts).toEqual([]);
    await gate.segments.sealDue(dueMs);
    expect(tailOf(gate)).toEqual([6, 7]);
  });

  it("takes of rows that waited a day only those that are no longer young", async () => {
    const gate = gateWith(2);
    gate.append("young", DAY_MS);
    await gate.segments.sealDue(1_000 + SMALL.ageMs);
    expect(tailOf(gate)).toEqual([3]);
  });

  it("bounds a segment in bytes as well as in rows", async () => {
    const gate = new TestGate({ ...SMALL, rows: 1_000, bytes: 10_000 });
    for (let record = 1; record <= 20; record++) gate.append(`r${record}`, record, { keyId: "ü".repeat(500) });
    const [row] = gate.sql.journalFrom(1, 1);
    const perSegment = Math.ceil(10_000 / bytesOf(row as never));
    expect(perSegment).toBeGreaterThan(1);
    await gate.segments.sealDue(DAY_MS + 1_000);
    const sizes = gate.store.puts.map(({ firstSeq, lastSeq }) => lastSeq - firstSeq + 1);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(20);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(perSegment);
  });

  it("counts the bytes of its rows, not their letters", () => {
    const row = { seq: 1, id: "r", at_ms: 1, hash: "h", event: null, decision: "{}" };
    expect(bytesOf({ ...row, decision: "üü" })).toBe(bytesOf({ ...row, decision: "aaaa" }));
    expect(bytesOf({ ...row, event: "aaaa" })).toBe(bytesOf(row) + 4);
  });

  it("says of a segment its oldest and newest stamp, wherever they stand in it", async () => {
    const gate = new TestGate();
    for (const atMs of [50_000, 45_000, 60_000, 55_000, 58_000]) gate.append(`r${atMs}`, atMs);
    await gate.segments.sealDue(DAY_MS);
    expect(gate.sql.lastSegment()).toMatchObject({ from_ms: 45_000, to_ms: 60_000 });
  });
});

describe("a gate that has to make room", () => {
  const FULL = SEGMENT_LIMITS.hotBytes + 1;
  /** Above the bytes that a gate may keep. */
  function crowded(records: number): TestGate {
    const gate = gateWith(records, { ...SMALL, hotBytes: SEGMENT_LIMITS.hotBytes });
    gate.storage.fullBytes = FULL;
    return gate;
  }

  it("keeps at most half of the stated gigabyte before it seals young rows", () => {
    expect(SEGMENT_LIMITS).toMatchObject({ rows: 10_000, youngMs: 15 * 60_000, ageMs: DAY_MS });
    expect(SEGMENT_LIMITS.hotBytes).toBeLessThanOrEqual(512 * 1_024 * 1_024);
    expect(SEGMENT_LIMITS.bytes).toBeLessThanOrEqual(8 * 1_024 * 1_024);
  });

  it("seals young rows too, a whole segment at a time", async () => {
    const gate = crowded(12);
    expect(await gate.segments.sealDue(12_000)).toBe(5_000 + YOUNG_MS);
    expect(tailOf(gate)).toEqual([11, 12]);
    gate.storage.fullBytes = SEGMENT_LIMITS.hotBytes;
    for (const record of [13, 14, 15]) gate.append(`r${record}`, record * 1_000);
    await gate.segments.sealDue(15_000);
    expect(tailOf(gate)).toEqual(numbers(11, 15));
  });

  it("still answers settlements that are retried, after a restart too, as long as the records were young", async () => {
    const gate = new TestGate({ ...SMALL, hotBytes: SEGMENT_LIMITS.hotBytes });
    gate.storage.fullBytes = FULL;
    const receipts = numbers(1, 4).map((record) => gate.append(`r${record}`, record * 1_000));
    gate.append("lost", 5_000, { outcome: "unreconciled" });
    const before = gate.journal.recorded("r1");
    expect(await gate.segments.sealDue(6_000)).toBe(5_000 + YOUNG_MS); // when the first receipts can go
    expect(tailOf(gate)).toEqual([]);
    for (let life = 0; life < 2; life++) {
      for (const record of numbers(1, 4)) {
        expect(gate.journal.recorded(`r${record}`)?.receipt).toBe(receipts[record - 1]);
      }
      expect(gate.journal.recorded("r1")).toMatchObject({ receipt: before?.receipt, event: { outcome: "completed" } });
      expect(gate.journal.recorded("lost")).toMatchObject({ event: { outcome: "unreconciled" } });
      expect(gate.journal.recorded("r5")).toBeUndefined();
      gate.restart();
    }
    const forgottenMs = 5_000 + YOUNG_MS;
    expect(await gate.segments.sealDue(forgottenMs - 1)).toBe(forgottenMs);
    expect(gate.journal.recorded("r1")?.receipt).toBe(receipts[0]);
    expect(await gate.segments.sealDue(forgottenMs)).toBeUndefined();
    expect(gate.journal.recorded("r1")).toBeUndefined();
    expect(gate.sql.firstReceipt()).toBeUndefined();
  });

  it("forgets receipts while it keeps those of younger segments", async () => {
    const gate = crowded(5);
    await gate.segments.sealDue(5_000);
    for (const record of numbers(6, 10)) gate.append(`r${record}`, 100_000 + record * 1_000);
    await gate.segments.sealDue(110_000);
    expect(await gate.segments.sealDue(5_000 + YOUNG_MS)).toBe(110_000 + YOUNG_MS);
    expect(gate.journal.recorded("r5")).toBeUndefined();
    expect(gate.journal.recorded("r6")).toBeDefined();
  });

  it("keeps no receipts of rows that are sealed old, and none of refusals", async () => {
    const gate = crowded(4);
    gate.refuse("refused", 5_000);
    await gate.segments.sealDue(YOUNG_MS + 3_000); // the first three are old by then
    expect(["r1", "r2", "r3", "r4", "refused"].map((id) => gate.journal.recorded(id) !== undefined)).toEqual([
      ...[false, false, false, true, false],
    ]);
  });

  it("is looked at for every segment's worth, by rows and by bytes", () => {
    const gate = new TestGate({ ...SMALL, bytes: 1_200 * 4, hotBytes: SEGMENT_LIMITS.hotBytes });
    const due = () => {
      gate.journal.append({ ...DECISION, id: "r", atMs: 1_000 }, null);
      return gate.tail.dueMs(1_000);
    };
    const dues = numbers(1, 10).map(due);
    expect(dues.map((dueMs) => dueMs - 1_000)).toEqual(
      [1, 2, 3, 4, 0, 1, 2, 3, 4, 0].map((at) => (at ? SMALL.ageMs : YOUNG_MS)),
    );
    gate.storage.fullBytes = FULL;
    expect(numbers(1, 5).map(due).at(-1)).toBe(1_000);
    const wide = new TestGate({ ...SMALL, rows: 1_000_000, bytes: 3_000 });
    wide.journal.append({ ...DECISION, id: "r".repeat(3_000), atMs: 1_000 }, null);
    expect(wide.tail.dueMs(1_000)).toBe(1_000 + YOUNG_MS);
  });

  it("counts what its storage holds when it wakes", () => {
    const gate = gateWith(5);
    gate.restart();
    expect(gate.tail.dueMs(6_000)).toBe(6_000 + YOUNG_MS);
    gate.restart();
    gate.append("r6", 6_000);
    expect(gate.tail.dueMs(6_000)).toBe(6_000 + YOUNG_MS);
  });
});

describe("what goes wrong while rows are sealed", () => {
  it("loses no row: they stay in the gate until their segment is in object storage", async () => {
    const gate = gateWith(5);
    const before = await gate.rows();
    let inTail: number[] = [];
    gate.store.beforePut = async () => {
      inTail = tailOf(gate);
      throw new Error("object storage does not answer");
    };
    await expect(gate.segments.sealDue(DAY_MS)).rejects.toThrow("does not answer");
    expect(inTail).toEqual(numbers(1, 5));
    expect(tailOf(gate)).toEqual(numbers(1, 5));
    gate.store.beforePut = async () => {};
    await gate.segments.sealDue(DAY_MS);
    expect(tailOf(gate)).toEqual([]);
    expect(await gate.rows()).toEqual(before);
  });

  it("changes nothing when an attempt that was given up is written late", async () => {
    const gate = gateWith(3);
    const late: (() => void)[] = [];
    gate.store.beforePut = async () => {
      const lost = Promise.withResolvers<void>();
      late.push(lost.resolve);
      await lost.promise;
    };
    void gate.segments.sealDue(SMALL.ageMs + 3_000); // hangs
    await expect.poll(() => late.length).toBe(1);
    gate.restart();
    for (const record of numbers(4, 9)) gate.append(`r${record}`, record * 1_000 + SMALL.ageMs);
    const before = await gate.rows();
    gate.store.beforePut = async () => {};
    await gate.segments.sealDue(3 * SMALL.ageMs);
    const sealed = gate.store.puts.length;
    late[0]?.();
    await expect.poll(() => gate.store.puts.length).toBe(sealed + 1);
    await expect.poll(async () => await gate.rows()).toEqual(before);
    const [first] = gate.store.puts;
    expect(gate.store.puts.at(-1)).toMatchObject({ firstSeq: 1, lastSeq: first?.lastSeq });
  });

  it("does again what a crash between object and row left, with the same rows", async () => {
    const gate = gateWith(5);
    const { transactionSync } = gate.storage;
    gate.storage.transactionSync = () => {
      throw new Error("the machine is gone");
    };
    gate.restart();
    await expect(gate.segments.sealDue(DAY_MS)).rejects.toThrow("gone");
    gate.storage.transactionSync = transactionSync;
    gate.restart();
    expect(tailOf(gate)).toEqual(numbers(1, 5));
    const before = await gate.rows();
    await gate.segments.sealDue(DAY_MS);
    expect(gate.store.puts.map(({ firstSeq, lastSeq }) => [firstSeq, lastSeq])).toEqual([
      [1, 5],
      [1, 5],
    ]);
    expect(await gate.rows()).toEqual(before);
    expect(gate.store.objects.size).toBe(1);
  });

  it("is refused where an object holds other rows than its segment says", async () => {
    const gate = gateWith(10);
    await gate.segments.sealDue(DAY_MS);
    const [first, second] = [...gate.store.objects.keys()];
    const [one, two] = [gate.store.objects.get(first ?? ""), gate.store.objects.get(second ?? "")];
    gate.store.objects.set(first ?? "", two as Uint8Array).set(second ?? "", one as Uint8Array);
    await expect(gate.rows()).rejects.toThrow(); // sealed for another place
    gate.store.objects.set(first ?? "", one as Uint8Array).set(second ?? "", two as Uint8Array);
    const segment = gate.sql.segmentAtOrAfter(1, 0);
    if (!segment) throw new Error("no segment");
    for (const wrong of [{ last_seq: 4 }, { last_hash: "0" }]) {
      await expect(gate.segments.read({ ...segment, ...wrong })).rejects.toThrow("other rows");
    }
    expect(await gate.segments.read(segment)).toHaveLength(5);
  });

  it("seals the same rows differently each time, for one place alone", async () => {
    const [gate, twin] = [gateWith(5), gateWith(5)];
    await gate.segments.sealDue(DAY_MS);
    await twin.segments.sealDue(DAY_MS);
    const [one, two] = [[...gate.store.objects.values()][0], [...twin.store.objects.values()][0]];
    expect(one?.length).toBe(two?.length);
    expect(Buffer.from(one ?? []).equals(Buffer.from(two ?? []))).toBe(false);
    expect([...gate.store.objects.keys()]).toEqual([`${HOME.region}/${HOME.tenantId}/journal/v1/000000000001`]);
  });
});

describe("the chain", () => {
  it("goes on after everything was sealed, in one life and in later ones, and covers decisions and events", async () => {
    const gate = gateWith(7);
    for (let life = 1; life <= 3; life++) {
      await gate.segments.sealDue(life * 3 * DAY_MS);
      expect(tailOf(gate)).toEqual([]);
      if (life > 1) gate.restart();
      const receipt = gate.append(`life-${life}`, life * 3 * DAY_MS);
      expect(receipt).toMatch(new RegExp(`^${7 + life}\\.[0-9a-f]{16}$`));
    }
    const rows = (await gate.rows()).map(({ seq, hash, decision, event }) => ({
      ...{ seq, hash, record: { decision: JSON.parse(decision), event: event && JSON.parse(event) } },
    }));
    expect(rows.map(({ seq }) => seq)).toEqual(numbers(1, 10));
    expect(verifyChain(rows, sha256)).toBeNull();
    for (const [place, change] of [
      ["event", { priceMicrodollars: 10 }],
      ["decision", { outcome: "cancelled" }],
    ] as const) {
      const changed = rows.map((row) => structuredClone(row));
      Object.assign(changed[3]?.record[place], change);
      expect(verifyChain(changed, sha256)).toBe(4);
    }
  });

  it("stamps no record before those that were sealed, though the clock of a later life is behind", async () => {
    const gate = gateWith(3);
    await gate.segments.sealDue(3 * DAY_MS);
    gate.restart();
    gate.append("after", 1);
    const [row] = gate.sql.journalFrom(4, 1);
    expect(row?.at_ms).toBe(3_000);
    expect(JSON.parse(row?.event ?? "").atMs).toBe(3_000);
    expect(JSON.parse(row?.decision ?? "").atMs).toBe(3_000);
  });
});
