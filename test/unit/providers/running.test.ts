import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { ProviderError } from "../../../src/inference/provider";
import { Running } from "../../../src/inference/providers/running";
import { failureOf, never } from "./calls";

const explain = () => new ProviderError("broken", "explained");
const counting = async function* () {
  for (let count = 0; ; count++) yield count;
};

describe("running work", () => {
  it("keeps no listener of a step that is done, however many there were", async () => {
    const running = new Running(never, 1_000);
    for (let step = 0; step < 100; step++) await running.wait(Promise.resolve(step));
    await running.wait(Promise.reject(new Error("a failed step"))).catch(() => {});
    expect(getEventListeners(running.signal, "abort")).toEqual([]);
  });

  it("lets go of its caller once it has stopped", () => {
    const caller = new AbortController();
    const running = new Running(caller.signal, null);
    expect(getEventListeners(caller.signal, "abort")).toHaveLength(1);
    running.stop();
    expect([running.signal.aborted, getEventListeners(caller.signal, "abort").length]).toEqual([true, 0]);
  });

  it("stops when its consumer throws into the output, and the consumer keeps its own error", async () => {
    const running = new Running(never, null);
    const output = running.output(counting(), explain);
    await output.next();
    const own = new Error("the consumer's own");
    await expect(output.throw?.(own)).rejects.toBe(own);
    expect(running.signal.aborted).toBe(true);
    expect(await output.next()).toEqual({ done: true, value: undefined });
  });

  it("closes what its steps hold before a leaving consumer goes on", async () => {
    let isClosed = false;
    const holding = async function* () {
      try {
        yield 1;
      } finally {
        isClosed = true;
      }
    };
    const output = new Running(never, null).output(holding(), explain);
    await output.next();
    await output.return?.();
    expect(isClosed).toBe(true);
  });

  it("explains a failure that is not its own, and passes on one that is", async () => {
    const failing = async function* (error: Error): AsyncGenerator<number> {
      yield await Promise.reject(error);
    };
    const told = (error: Error) => failureOf(() => new Running(never, null).output(failing(error), explain).next());
    expect((await told(new Error("host-7 refused"))).message).toBe("explained");
    expect((await told(new ProviderError("capacity", "no room"))).failure).toBe("capacity");
  });
});
