import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { barChart } from "./chart.ts";
import type { Policy, Result, Server } from "./simulate.ts";
import type { Scenario } from "./traces.ts";

/**
 * How a scarce model is shared, in virtual time, by the scheduler that the product runs (`src/core/fair-share.ts`),
 * beside first come, first served and a cap for each tenant. Writes bench/results/fairness.json and .svg.
 */
const folder = mkdtempSync(join(tmpdir(), "tenantry-fairness-"));
const outfile = join(folder, "simulate.mjs");
await build({
  entryPoints: [join(import.meta.dirname, "simulate.ts")],
  outfile,
  bundle: true,
  format: "esm",
  logLevel: "error",
});
const { simulate, capacityOf, POLICIES } = (await import(
  pathToFileURL(outfile).href
)) as typeof import("./simulate.ts");
rmSync(folder, { recursive: true });

const traces = JSON.parse(readFileSync(join(import.meta.dirname, "traces.json"), "utf8")) as {
  readonly server: Server;
  readonly scenarios: readonly Scenario[];
};
const NAMES: Readonly<Record<Policy, string>> = {
  fcfs: "first come, first served",
  caps: "a cap for each tenant",
  fair: "fair share",
};
const results = traces.scenarios.flatMap((scenario) =>
  POLICIES.map((policy) => simulate(scenario, traces.server, policy)),
);
const of = (scenario: string, policy: Policy) =>
  results.find((result) => result.scenario === scenario && result.policy === policy) as Result;
/** The tenant that a scenario is about: the one that asks for least. */
const watched = (scenario: string) => {
  const { tenants } = of(scenario, "fcfs");
  return tenants.reduce((least, tenant) => (tenant.requests < least.requests ? tenant : least)).tenant;
};
const resultOf = (scenario: string, policy: Policy) => {
  const tenant = of(scenario, policy).tenants.find((each) => each.tenant === watched(scenario));
  if (!tenant) throw new Error(`no result for ${scenario}`);
  return tenant;
};

const capacity = capacityOf(traces.server, { input: 256, output: 256 });
console.log(`${traces.server.slots} slots: ${capacity.toFixed(2)} requests/s of 256 + 256 tokens\n`);
console.log(
  "| scenario | offered / capacity | policy | tenant | p50, p95 to the first token, s | its share | tokens/s |",
);
console.log("|---|---|---|---|---|---|---|");
for (const { name } of traces.scenarios) {
  for (const policy of POLICIES) {
    const { load, tokensPerSecond } = of(name, policy);
    const { tenant, p50FirstTokenMs, p95FirstTokenMs, share } = resultOf(name, policy);
    const wait = `${(p50FirstTokenMs / 1000).toFixed(2)}, ${(p95FirstTokenMs / 1000).toFixed(2)}`;
    console.log(
      `| ${name} | ${load.toFixed(2)} | ${NAMES[policy]} | ${tenant} | ${wait} | ${(100 * share).toFixed(1)} % | ${tokensPerSecond.toFixed(0)} |`,
    );
  }
}
const weighted = of("weights 1:2:4", "fair").tenants;
console.log(
  `\nweights 1:2:4 get ${weighted.map(({ tenant, share }) => `${tenant} ${(100 * share).toFixed(1)} %`).join(", ")}`,
);

const out = join(import.meta.dirname, "..", "results");
mkdirSync(out, { recursive: true });
writeFileSync(join(out, "fairness.json"), `${JSON.stringify({ server: traces.server, results }, null, 1)}\n`);
const groups = (value: (scenario: string, policy: Policy) => number) =>
  traces.scenarios.map(({ name }) => ({
    label: `${name}: ${watched(name)}`,
    bars: POLICIES.map((policy) => value(name, policy)),
  }));
const chart = barChart(
  POLICIES.map((policy) => NAMES[policy]),
  [
    {
      title: "Waiting: 95 of 100 first tokens come within, logarithmic",
      unit: "s",
      isLog: true,
      groups: groups((name, policy) => resultOf(name, policy).p95FirstTokenMs / 1000),
    },
    {
      title: "Share of the model's service",
      unit: "%",
      groups: groups((name, policy) => 100 * resultOf(name, policy).share),
    },
    {
      title: "Throughput of all tenants",
      unit: "tokens/s",
      groups: groups((name, policy) => of(name, policy).tokensPerSecond),
    },
  ],
);
writeFileSync(join(out, "fairness.svg"), chart);
