import { execFileSync } from "node:child_process";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");

/** Builds both bundles once, before any test that runs one. */
export default function build(): void {
  for (const [environment, folder] of [
    ["", "local"],
    ["production", "production"],
  ] as const) {
    const wrangler = join(ROOT, "node_modules/wrangler/bin/wrangler.js");
    const args = [wrangler, "deploy", "--dry-run", `--env=${environment}`, "--outdir", join(ROOT, "dist", folder)];
    execFileSync(process.execPath, args, { cwd: ROOT, stdio: "pipe" });
  }
}
