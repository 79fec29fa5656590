import type { LoraAdapter } from "../../local-ai/adapter";
import { BLOCK_TOKENS, MAX_ROWS } from "../../local-ai/decoder";
import { loadDecoder } from "./engine";

const decoder = loadDecoder(512 / BLOCK_TOKENS);

/** The engine's logits after a prompt. */
export function readLogits(ids: readonly number[], lora?: LoraAdapter): Float32Array {
  const table = decoder.createTable();
  for (let index = 0; index < decoder.blocks; index++) decoder.setBlock(table, index, index);
  const adapter = lora ? decoder.loadAdapter(lora) : 0;
  if (adapter === undefined) throw new RangeError("the adapter does not fit");
  let logits = new Float32Array();
  for (let from = 0; from < ids.length; from += MAX_ROWS) {
    const rows = ids.slice(from, from + MAX_ROWS).map((token, at) => {
      const position = from + at;
      return { token, position, table, adapter, wants: position === ids.length - 1 ? "logits" : "nothing" } as const;
    });
    logits = decoder.step(rows).logits.slice();
  }
  if (adapter !== 0) decoder.freeAdapter(adapter);
  decoder.freeTable(table);
  return logits;
}
