import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { TenantGateRpc } from "../../../durable-objects/tenant-gate.messages";
import { askInLine } from "../../../src/tenancy/gates";

const PASSING = Object.assign(new Error("the object was reset"), { retryable: true });

/** Asks with these answers of the gate, one after another; an error is thrown. */
async function ask(answers: readonly (Error | { readonly admitted: boolean })[], abort = new AbortController()) {
  const leave = vi.fn((_: string) => Promise.resolve());
  const left = [...answers];
  const kept: Promise<unknown>[] = [];
  const inLine = {
    ...{ requestId: "r", signal: abort.signal, isAdmitted: (reply: { admitted: boolean }) => reply.admitted },
    waitUntil: (promise: Promise<unknown>) => void kept.push(promise),
  };
  const reply = await askInLine({ leave } as unknown as TenantGateRpc, inLine, async () => {
    const next = left.shift();
    if (abort.signal.aborted || !next) throw new Error("nobody answers");
    if (next instanceof Error) throw next;
    return next;
  }).catch((error: unknown) => error);
  return { reply, leave, kept };
}

describe("a question that may leave something reserved", () => {
  beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => {}));
  afterEach(() => void vi.restoreAllMocks());

  it("is taken back by nobody where it was answered", async () => {
    const { reply, leave } = await ask([{ admitted: true }]);
    expect(reply).toEqual({ admitted: true });
    expect(leave).not.toHaveBeenCalled();
    expect((await ask([{ admitted: false }])).leave).not.toHaveBeenCalled();
    expect((await ask([PASSING, { admitted: true }])).leave).not.toHaveBeenCalled();
  });

  it("is taken back where no answer came, for as long as the message takes", async () => {
    const { reply, leave, kept } = await ask([PASSING, PASSING]);
    expect(reply).toMatchObject({ code: "admission_unavailable" });
    expect(leave.mock.calls).toEqual([["r"]]);
    expect(kept).toHaveLength(1);
  });

  it("is taken back where a retry was refused: the first attempt may have been admitted", async () => {
    expect((await ask([PASSING, { admitted: false }])).leave.mock.calls).toEqual([["r"]]);
  });

  it("is taken back when its caller goes away, and no longer once it was answered", async () => {
    const abort = new AbortController();
    const asked = Promise.withResolvers<{ admitted: boolean }>();
    const leave = vi.fn((_: string) => Promise.resolve());
    const inLine = { requestId: "r", signal: abort.signal, isAdmitted: () => true };
    const reply = askInLine({ leave } as unknown as TenantGateRpc, inLine, () => asked.promise);
    abort.abort();
    expect(leave.mock.calls).toEqual([["r"]]);
    asked.resolve({ admitted: true });
    await reply;
    const later = new AbortController();
    const { leave: unheard } = await ask([{ admitted: true }], later);
    later.abort();
    expect(unheard).not.toHaveBeenCalled();
  });
});
