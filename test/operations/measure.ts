import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { type Platform, startPlatform, upstreamModel } from "../isolates";
import { MockUpstream } from "../mock-upstream";
import { Operator, type TestTenant } from "../operator";
import { type Cost, costOf, type Operation } from "./operations";

const ROOT = join(import.meta.dirname, "../..");
/** What each round trip takes longer, in milliseconds: those of a caller far from its tenant. */
const FAR_MS = 80;
/** A binding and a lease are younger than this. */
const PAUSE_MS = 900;

/** The counted Worker, as `wrangler deploy` would bundle it. */
export function buildCounted(): void {
  const wrangler = join(ROOT, "node_modules/wrangler/bin/wrangler.js");
  const entry = join(ROOT, "test/operations/worker.ts");
  const args = ["deploy", entry, "--dry-run", "--env", "production", "--outdir", join(ROOT, "dist/operations")];
  execFileSync(process.execPath, [wrangler, ...args], { cwd: ROOT, stdio: "pipe" });
}

/** Counts what calls of each kind cost, on a platform where every round trip takes {@link FAR_MS} longer. */
export async function measureOperations(): Promise<Cost[]> {
  const mock = await MockUpstream.start({ tokens: 2 });
  const models = [upstreamModel("mock"), upstreamModel("scarce", { max_in_flight: 4 })];
  const platform = await startPlatform({
    bundle: "operations",
    isolates: 2,
    vars: { UPSTREAM_URL: mock.url, MODEL_CATALOGUE: { version: "1", models }, DELAY_MS: FAR_MS },
  });
  try {
    const operator = new Operator(platform.url, platform.adminKey);
    return await new Measurement(platform, await operator.createTenant(), await limited(operator)).run();
  } finally {
    await platform.stop();
    await mock.stop();
  }
}

const limited = (operator: Operator) => operator.createTenant({ requestsPerMinute: 1, model: "mock" });

class Measurement {
  constructor(
    readonly platform: Platform,
    readonly tenant: TestTenant,
    readonly limited: TestTenant,
  ) {}

  async run(): Promise<Cost[]> {
    await this.#call(this.limited, "mock", 0); // the one that its limit allows
    return [
      await this.#cost("first of a key in an isolate", this.tenant, "mock", 1),
      await this.#cost("of a busy key: brings a lease", this.tenant, "mock", 1),
      await this.#cost("of a busy key: on its lease", this.tenant, "mock", 1),
      await this.#afterPause(),
      await this.#scarce(),
      await this.#cost("refused by a limit (429)", this.limited, "mock", 0, 429),
    ];
  }

  async #afterPause(): Promise<Cost> {
    await pause(PAUSE_MS);
    return this.#cost("of a key that was away for a second", this.tenant, "mock", 1);
  }

  async #scarce(): Promise<Cost> {
    for (let call = 0; call < 2; call++) await this.#call(this.tenant, "scarce", 1);
    return this.#cost("to a scarce model, of a busy key: on its lease", this.tenant, "scarce", 1);
  }

  async #cost(name: string, tenant: TestTenant, model: string, isolate: number, status = 200): Promise<Cost> {
    await this.#quiet();
    await this.#call(tenant, model, isolate, status);
    const own = await this.#operations(isolate);
    // The objects live in the first isolate; where calls are made from another, it counts their rows alone.
    const others = isolate === 0 ? [] : (await this.#operations(0)).filter(({ of }) => of.endsWith(" rows"));
    const upkeep = ["TENANT_GATE.returnLease"]; // of a lease that an earlier call brought
    return costOf(
      name,
      [...own, ...others].filter(({ of }) => !upkeep.includes(of)),
    );
  }

  async #call(tenant: TestTenant, model: string, isolate: number, status = 200): Promise<void> {
    const reply = await fetch(`${this.platform.urls[isolate]}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${tenant.key}` },
      body: JSON.stringify({ model, messages: [{ role: "user", content: "hi" }], max_completion_tokens: 2 }),
    });
    const text = await reply.text();
    if (reply.status !== status) throw new Error(`expected ${status}, got ${reply.status}: ${text}`);
  }

  /** Throws away what was counted so far. */
  async #quiet(): Promise<void> {
    await Promise.all([this.#operations(0), this.#operations(1)]);
  }

  async #operations(isolate: number): Promise<Operation[]> {
    return (await (await fetch(`${this.platform.urls[isolate]}/operations`)).json()) as Operation[];
  }
}

const pause = (ms: number) => new Promise((settle) => setTimeout(settle, ms));
