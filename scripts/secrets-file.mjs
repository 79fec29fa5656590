import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** Secrets on their way to the platform: a file for its owner alone, because arguments show in the list of processes. */
export class SecretsFile {
  /** @param values by name, without line ends */
  constructor(path, values) {
    this.path = path;
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const lines = Object.entries(values).map(([name, value]) => `${name}=${quoted(value)}\n`);
    rmSync(path, { force: true }); // an older one may be open to others
    writeFileSync(path, lines.join(""), { mode: 0o600 });
    chmodSync(path, 0o600);
  }

  remove() {
    rmSync(this.path, { force: true });
  }
}

/** As dotenv reads it: in quotes nothing has a meaning but the quote itself, and `$`, which names a variable. */
function quoted(value) {
  const quote = ["'", "`", '"'].find((mark) => !value.includes(mark));
  if (quote === undefined) throw new Error("a secret with three kinds of quotes in it cannot be handed on");
  return quote + value.replaceAll("$", "\\$") + quote;
}
