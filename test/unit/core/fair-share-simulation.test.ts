import { describe, expect, it } from "vitest";
import { type Policy, type Server, simulate } from "../../../bench/fairness/simulate";
import type { Scenario } from "../../../bench/fairness/traces";
import traces from "../../../bench/fairness/traces.json";

const server = traces.server as Server;
const scenario = (name: string) => traces.scenarios.find((each) => each.name === name) as Scenario;
const run = (name: string, policy: Policy) => {
  const result = simulate(scenario(name), server, policy);
  const of = (tenant: string) => result.tenants.find((each) => each.tenant === tenant);
  return {
    ...result,
    share: (tenant: string) => of(tenant)?.share ?? 0,
    p95: (tenant: string) => of(tenant)?.p95FirstTokenMs ?? 0,
  };
};

describe("the fair share of a scarce model, in virtual time", () => {
  it("is asked for more than there is in every scenario, so that sharing means something", () => {
    for (const { name } of traces.scenarios) expect(run(name, "fcfs").load, name).toBeGreaterThanOrEqual(1.3);
  });

  it("lets a quiet tenant beside a flood wait a twentieth of first come, first served, and costs no throughput", () => {
    const [fair, fcfs] = [run("on-off", "fair"), run("on-off", "fcfs")];
    expect(fair.p95("quiet")).toBeLessThanOrEqual(fcfs.p95("quiet") / 20);
    expect(fair.tokensPerSecond).toBeGreaterThanOrEqual(0.99 * fcfs.tokensPerSecond);
    // Caps protect the quiet one too, and leave the server idle for it.
    expect(run("on-off", "caps").tokensPerSecond).toBeLessThan(0.9 * fair.tokensPerSecond);
  });

  it("is one half each, when both want more, though one asks for twice as much", () => {
    expect(Math.abs(run("1:2 overload", "fair").share("one") - 0.5)).toBeLessThanOrEqual(0.01);
    expect(run("1:2 overload", "fcfs").share("one")).toBeLessThan(0.4);
  });

  it("is not larger for a tenant with a hundred keys", () => {
    const fair = run("100 keys", "fair");
    expect(fair.share("split") / fair.share("single")).toBeLessThanOrEqual(1.02);
  });

  it("follows the weights of the plans", () => {
    const fair = run("weights 1:2:4", "fair");
    expect(fair.share("two") / fair.share("one")).toBeCloseTo(2, 0);
    expect(fair.share("four")).toBeGreaterThan(1.6 * fair.share("two"));
  });

  it("is the same every time: a trace is its seed", () => {
    expect(simulate(scenario("27 clients"), server, "fair")).toEqual(simulate(scenario("27 clients"), server, "fair"));
  });
});
