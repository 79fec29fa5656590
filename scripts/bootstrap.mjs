import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { generateAdminKey } from "./keys.mjs";

/** The local keys: this file, readable by its owner alone, is the only place where a key stands in plain text. */
export class Bootstrap {
  constructor(path) {
    this.path = path;
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    this.keys = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : { adminKey: generateAdminKey() };
    this.#save();
  }

  /** Makes the demo tenant, or what an interrupted start left of it undone. */
  async seed(url) {
    if (this.keys.tenantKey) return;
    const call = (path, body) => this.#call(url, path, body);
    const known = (await call("/v1/organization/projects?limit=100")).data.find(({ name }) => name === "Demo");
    const project = known ?? (await call("/v1/organization/projects", { name: "Demo" }));
    const path = `/v1/organization/projects/${project.id}/service_accounts`;
    const account = await call(path, { name: "demo", create_service_account_only: true });
    const key = await call(`${path}/${account.id}/api_keys`, { name: "demo", scopes: ["data", "account"] });
    Object.assign(this.keys, { projectId: project.id, tenantKey: key.value });
    this.#save();
  }

  async #call(url, path, body) {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const headers = { authorization: `Bearer ${this.keys.adminKey}`, "content-type": "application/json" };
    const reply = await fetch(url + path, { ...init, headers, signal: AbortSignal.timeout(30_000) });
    if (!reply.ok) throw new Error(`seeding failed: ${path} answered ${reply.status}: ${await reply.text()}`);
    return reply.json();
  }

  #save() {
    writeFileSync(this.path, `${JSON.stringify(this.keys, null, 2)}\n`, { mode: 0o600 });
    chmodSync(this.path, 0o600);
  }
}
