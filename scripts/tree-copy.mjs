// A copy of the tree that may be broken on purpose: what git knows or would know, with shared dependencies.
import { execFileSync } from "node:child_process";
import { constants, copyFileSync, existsSync, mkdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { ROOT } from "./toolchain.mjs";

export function copyTree(tree) {
  rmSync(tree, { recursive: true, force: true });
  for (const file of listed()) {
    const to = join(tree, file);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(join(ROOT, file), to, constants.COPYFILE_FICLONE);
  }
  mkdirSync(join(tree, ".tenantry"), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(tree, "node_modules"), "junction");
  return tree;
}

function listed() {
  const args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const files = execFileSync("git", args, { cwd: ROOT, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  return files.split("\0").filter((file) => file !== "" && existsSync(join(ROOT, file)));
}
