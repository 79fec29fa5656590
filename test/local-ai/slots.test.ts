import { describe, expect, it } from "vitest";
import { Slots } from "../../local-ai/slots";

const isBegun = async (place: { readonly turn: Promise<void> }) =>
  Promise.race([place.turn.then(() => true), new Promise((resolve) => setTimeout(resolve, 1, false))]);

describe("slots", () => {
  it("let so many begin, and the rest in the order in which they came", async () => {
    const slots = new Slots(2, 9);
    const [a, b, c, d] = [slots.enter(), slots.enter(), slots.enter(), slots.enter()];
    expect(await Promise.all([a, b, c, d].map(isBegun))).toEqual([true, true, false, false]);
    b.leave();
    expect(await Promise.all([c, d].map(isBegun))).toEqual([true, false]);
    c.leave();
    expect(await isBegun(d)).toBe(true);
  });

  it("refuse with 3040 when the line is full, or when the caller does not wait", () => {
    const slots = new Slots(1, 1);
    slots.enter(false);
    expect(() => slots.enter(false)).toThrow(/^3040: /);
    slots.enter();
    expect(() => slots.enter()).toThrow(/^3040: /);
  });

  it("give a place away once, however often its owner leaves", async () => {
    const slots = new Slots(1, 9);
    const [a, b, c] = [slots.enter(), slots.enter(), slots.enter()];
    a.leave();
    a.leave();
    expect(await Promise.all([b, c].map(isBegun))).toEqual([true, false]);
  });

  it("settle the turn of who leaves the line, and give it no slot", async () => {
    const slots = new Slots(1, 9);
    const [a, b, c] = [slots.enter(), slots.enter(), slots.enter()];
    b.leave();
    expect(await isBegun(b)).toBe(true);
    expect(await isBegun(c)).toBe(false);
    a.leave();
    expect(await isBegun(c)).toBe(true);
    c.leave();
    expect(await isBegun(slots.enter(false))).toBe(true);
  });
});
