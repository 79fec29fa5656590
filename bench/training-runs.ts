import type { JobStatus } from "../local-ai/trainer/jobs.ts";
import { heldOutFile, misplacedFile, trainingFile } from "../test/local-ai/brand-voice.ts";
import { type Door, openDoor } from "../test/local-ai/door.ts";
import type { Row } from "./model-runs.ts";

const MODEL = "@local/tiny-support-lm";
const QUESTIONS = ["How do I cancel my order?", "I want a refund", "Where is my parcel?", "Can I change my address?"];

/** What training costs and gives, in a server that answers calls beside it. */
export async function measureTraining(tell: (line: string) => void): Promise<Row[]> {
  const door = await openDoor();
  const before = await outputsOf(door);
  const alone = await gapsUntil(door, new Promise((resolve) => setTimeout(resolve, 10_000)));
  tell("training, 300 steps of 8");
  const own = await train(door, "own", trainingFile());
  tell("the same on the same answers, given to other questions");
  const misplaced = await train(door, "misplaced", misplacedFile());
  tell("training beside a stream");
  const beside = await gapsUntil(door, train(door, "beside", trainingFile(), 100));
  const after = await outputsOf(door);
  await door.stop();
  const changed = before.filter((output, at) => output !== after[at]).length;
  const nats = (value: number) => `${value.toFixed(3)} nats`;
  return [
    {
      what: "training, 300 steps of 8 examples, rank 8 on q and v",
      ...{ measured: `${own.seconds.toFixed(1)} s`, against: "90 s", ratio: own.seconds / 90 },
      wanted: { says: "≤ 1", most: 1 },
      raw: [[own.seconds, misplaced.seconds]],
    },
    {
      what: "loss of 40 held-out examples after it, against the base's",
      ...{ measured: nats(own.loss), against: nats(own.base), ratio: own.loss / own.base },
      wanted: { says: "≤ 0.6", most: 0.6 },
      raw: [[own.loss, own.base]],
    },
    {
      what: "the same, against a training on the same answers to other questions",
      ...{ measured: nats(own.loss), against: nats(misplaced.loss), ratio: own.loss / misplaced.loss },
      wanted: { says: "≤ 0.6", most: 0.6 },
      raw: [[own.loss, misplaced.loss]],
    },
    {
      what: "longest pause of a stream beside training, against without it",
      measured: `${longest(beside).toFixed(1)} ms, allowed 50`,
      against: `${longest(alone).toFixed(1)} ms`,
      ratio: longest(beside) / 50,
      wanted: { says: "≤ 1 of 50 ms", most: 1 },
      raw: descending(beside)
        .slice(0, 20)
        .map((gap, at) => [gap, descending(alone)[at] ?? 0] as const),
    },
    {
      what: "outputs of the base that training changed",
      ...{ measured: `${changed} of ${before.length}`, against: "0", ratio: changed },
      wanted: { says: "0", most: 0 },
      raw: [],
    },
  ];
}

const descending = (values: readonly number[]) => [...values].sort((a, b) => b - a);
const longest = (values: readonly number[]) => descending(values)[0] ?? 0;

async function train(door: Door, id: string, training: string, steps = 300) {
  const startMs = performance.now();
  const validation = heldOutFile();
  await door.train("start", { id, model: MODEL, training, validation, hyperparameters: { steps } });
  for (;;) {
    const { state, validationLoss, baseValidationLoss } = await door.train<JobStatus>("status", id);
    if (state === "succeeded") {
      const seconds = (performance.now() - startMs) / 1000;
      return { seconds, loss: validationLoss ?? Number.NaN, base: baseValidationLoss ?? Number.NaN };
    }
    if (state === "failed" || state === "cancelled") throw new Error(`the training ${state}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Texts and embeddings of the base, to the last bit. */
async function outputsOf(door: Door): Promise<string[]> {
  const texts = QUESTIONS.map((prompt) => door.run({ inputs: { prompt, temperature: 0 } }));
  const vectors = QUESTIONS.map((text) => door.run({ model: `${MODEL}-embed`, inputs: { text } }));
  return Promise.all([...texts, ...vectors].map(async (reply) => (await reply).text()));
}

/** Milliseconds between the pieces of one stream after another, until something is over. */
async function gapsUntil(door: Door, over: Promise<unknown>): Promise<number[]> {
  let isOver = false;
  void over.finally(() => {
    isOver = true;
  });
  const gaps: number[] = [];
  while (!isOver) {
    const inputs = { prompt: QUESTIONS[gaps.length % QUESTIONS.length], stream: true, max_tokens: 120 };
    const { body } = await door.run({ inputs });
    let lastMs: number | undefined;
    for await (const _ of body as unknown as AsyncIterable<Uint8Array>) {
      const nowMs = performance.now();
      if (lastMs !== undefined) gaps.push(nowMs - lastMs);
      lastMs = nowMs;
    }
  }
  await over;
  return gaps;
}
