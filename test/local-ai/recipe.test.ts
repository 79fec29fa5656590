import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";

const RECIPE = join(import.meta.dirname, "../../local-ai/recipe");
const python = (script: string) => execFileSync("python3", [script], { cwd: RECIPE, encoding: "utf8" });
const hasPython = spawnSync("python3", ["--version"]).status === 0;

describe("the recipe of the base", () => {
  it("has the data that its description names", () => {
    const readme = readFileSync(join(RECIPE, "README.md"), "utf8");
    for (const file of ["bitext-8b6ca3d.csv.gz", "bitext-a6d3265.csv.gz"]) {
      const data = gunzipSync(readFileSync(join(RECIPE, "data", file)));
      const row = readme.split("\n").find((line) => line.includes(file));
      expect(row).toContain(createHash("sha256").update(data).digest("hex"));
    }
  });

  it.runIf(hasPython)("makes the rows that it says, and of them the tokenizer that is shipped", () => {
    expect(python("prepare.py").trim().split("\n")).toEqual([
      ...["answers: 3782", "held_out_answers: 433", "labels: 5600", "held_out_labels: 622"],
    ]);
    expect(python("tokenizer.py")).toContain("the shipped tokenizer is the same: True");
  });
});
