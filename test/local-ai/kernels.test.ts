import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "../..");
const KERNELS = [
  ["build:kernel", "local-ai/kernel/engine.wasm"],
  ["build:trainer", "local-ai/trainer/kernel/trainer.wasm"],
] as const;

describe.each(KERNELS)("the kernel of %s", (script, compiled) => {
  it("is what its source compiles to", () => {
    const folder = mkdtempSync(join(tmpdir(), "tenantry-kernel-"));
    const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
      scripts: Record<typeof script, string>;
    };
    const built = join(folder, "built.wasm");
    const [, ...args] = scripts[script].replace(compiled, built).split(" ");
    const asc = join(ROOT, "node_modules/assemblyscript/bin/asc.js");
    const { status, stderr } = spawnSync(process.execPath, [asc, ...args], { cwd: ROOT, encoding: "utf8" });
    expect([status, stderr]).toEqual([0, ""]);
    const isSame = readFileSync(built).equals(readFileSync(join(ROOT, compiled)));
    rmSync(folder, { recursive: true });
    expect(isSame, `run \`npm run ${script}\` and commit what it wrote`).toBe(true);
  }, 60_000);

  it("needs no relaxed SIMD, so that it computes the same everywhere", () => {
    const bytes = readFileSync(join(ROOT, compiled));
    // Opcodes of relaxed SIMD begin with 0xfd and 0x100 to 0x12f as LEB128: 0x80 to 0xaf, then 0x02.
    const relaxed = [...bytes.keys()].filter(
      (at) => bytes[at] === 0xfd && (bytes[at + 1] ?? 0) >= 0x80 && (bytes[at + 1] ?? 0) <= 0xaf && bytes[at + 2] === 2,
    );
    expect(relaxed).toEqual([]);
  });
});
