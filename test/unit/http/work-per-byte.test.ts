import { createHash } from "node:crypto";
import process from "node:process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { ApiError } from "../../../src/errors";
import { JsonLines } from "../../../src/files/json-lines";
import { chatCompletions } from "../../../src/http/chat-completions";
import { classifications } from "../../../src/http/classifications";
import { embeddings } from "../../../src/http/embeddings";
import { MAX_JSON_BYTES, readJson } from "../../../src/http/json-body";
import type { ParsedCall } from "../../../src/http/model-call";
import { moderations } from "../../../src/http/moderations";
import { responses } from "../../../src/http/responses";
import { parseUpdate } from "../../../src/http/stored-completions";
import { ModelCatalogue } from "../../../src/inference/catalogue";
import models from "../../../src/inference/models.json";
import type { PipelinePorts } from "../../../src/pipeline/model-call";
import { openingCall } from "../../../src/pipeline/reserve";
import { type RouteName, SHAPES } from "./hostile-bodies";

const MIB = 1024 * 1024;
/** What a body may cost: so much for each MiB, and as much in all for a smaller one. */
const CPU_MS_PER_MIB = 50;
const LONG = process.env.PROVE === "1";
const BODIES = LONG ? 10_000 : 250;
const CHARACTERS_OF_AN_ERROR = 2_000;

z.config({ jitless: true }); // as in Workers, where no code is made from text

const ports = { catalogue: ModelCatalogue.parse(models) } as unknown as PipelinePorts;
const reserving =
  (parse: (body: unknown) => ParsedCall) =>
  (body: unknown): void => {
    const { request } = parse(body);
    openingCall({ id: "req_1", route: "/v1", patienceMs: 1, ports, request }, { region: "global", models: null });
  };
/** What each route does with a body before anything is reserved for it. */
const BEFORE: Readonly<Record<RouteName, (body: unknown) => void>> = {
  chat: reserving(chatCompletions.parse),
  responses: reserving(responses.parse),
  embeddings: reserving(embeddings.parse),
  moderations: reserving(moderations.parse),
  classifications: reserving(classifications.parse),
  update: parseUpdate,
  lines: () => {},
};

async function read(route: RouteName, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  if (route !== "lines") {
    const request = new Request("http://platform.test/", { method: "POST", body: bytes });
    BEFORE[route](await readJson(request));
    return;
  }
  const lines = new JsonLines(); // of a file, in pieces as they are uploaded
  for (let from = 0; from < bytes.length; from += 65_536) lines.push(bytes.subarray(from, from + 65_536));
  lines.end();
}

/** CPU of this thread, so that a busy machine changes nothing. */
async function cpuMsOf(route: RouteName, bytes: Uint8Array<ArrayBuffer>): Promise<number> {
  const before = process.threadCpuUsage();
  createHash("sha256").update(bytes).digest("hex"); // of a body with an idempotency key
  try {
    await read(route, bytes);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    expect(error.message.length + (error.options.param?.length ?? 0)).toBeLessThan(CHARACTERS_OF_AN_ERROR);
  }
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}

/** The least of a few: the collector may take its turn in one of them, and a compiler in the first. */
async function leastCpuMs(route: RouteName, bytes: Uint8Array<ArrayBuffer>, budgetMs: number): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 3 && least > budgetMs; run++) least = Math.min(least, await cpuMsOf(route, bytes));
  return least;
}

interface Body {
  readonly shape: number;
  /** Of the size, as a part of its logarithm. */
  readonly scale: number;
  readonly seed: number;
}

async function assertWithinBudget({ shape, scale, seed }: Body): Promise<void> {
  const { name, routes, text } = SHAPES[shape % SHAPES.length] as (typeof SHAPES)[number];
  let state = seed;
  const pick = (count: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const size = Math.floor(64 * (MAX_JSON_BYTES / 64) ** scale);
  const route = routes[pick(routes.length)] as RouteName;
  const bytes = new TextEncoder().encode(text(size, pick)).slice(0, MAX_JSON_BYTES);
  const budgetMs = CPU_MS_PER_MIB * Math.max(1, bytes.length / MIB);
  const spentMs = await leastCpuMs(route, bytes, budgetMs);
  if (process.env.REPORT)
    console.log(`${(spentMs / Math.max(1, bytes.length / MIB)).toFixed(1)} ${bytes.length} ${route} ${name}`);
  expect(spentMs, `${name} (${bytes.length} bytes) for ${route}`).toBeLessThanOrEqual(budgetMs);
}

describe("a body", () => {
  it(`of any form costs at most ${CPU_MS_PER_MIB} ms of CPU per MiB before anything is reserved for it`, async () => {
    const bodies = fc.record({
      shape: fc.nat(SHAPES.length - 1),
      scale: fc.double({ min: 0, max: 1, noNaN: true }),
      seed: fc.nat(),
    });
    await fc.assert(fc.asyncProperty(bodies, assertWithinBudget), { numRuns: BODIES, endOnFailure: true });
  }, 1_800_000);

  it.each(SHAPES.map(({ name }, shape) => ({ name, shape })))("of a MiB: $name", async ({ shape }) => {
    await assertWithinBudget({ shape, scale: 0.824, seed: 7 });
  });
});
