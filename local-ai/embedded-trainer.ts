import { DurableObject } from "cloudflare:workers";
import { z } from "zod";
import { MAX_RANK, TARGETS } from "./adapter";
import { bindWeights } from "./base-weights";
import { TEXT_MODEL } from "./models";
import { serialisePeft } from "./peft";
import { parseSafetensors } from "./safetensors";
import { Tokenizer, type TokenizerFile } from "./tokenizer";
import { ExampleError, parseExamples } from "./trainer/examples";
import { ADAPTER, CHECKPOINT, EXAMPLES, type JobReport, type JobStatus, TrainingJobs } from "./trainer/jobs";
import kernel from "./trainer/kernel/trainer.wasm";
import type { Example } from "./trainer/machine";
import { hyperparameters } from "./trainer/schedule";
import { Trainer } from "./trainer/trainer";
import config from "./weights/config.json";
import weightsFile from "./weights/model.fp16.safetensors.bin";
import tokenizerFile from "./weights/tokenizer.json";

/** Steps between two checkpoints: a second or two of work. */
const STEPS_PER_CHECKPOINT = 25;
const STEPS_PER_VALIDATION = 50;
const MAX_OPEN_JOBS = 100;
const MAX_FILE_CHARACTERS = 4 * 1024 * 1024;

const JobInput = z.object({
  /** Chosen by the caller; the same one again is the same job. */
  id: z.string().min(1).max(256),
  model: z.string(),
  /** JSON Lines of `{"messages": [...]}`. */
  training: z.string().max(MAX_FILE_CHARACTERS),
  validation: z.string().max(MAX_FILE_CHARACTERS).optional(),
  hyperparameters: z
    .strictObject({
      targets: z.array(z.enum(TARGETS)).min(1),
      rank: z.int().min(1).max(MAX_RANK),
      alpha: z.number().positive().max(1_024),
      learningRate: z.number().positive().max(1),
      steps: z.int().min(1).max(10_000),
      batchSize: z.int().min(1).max(64),
      warmUpSteps: z.int().min(0).max(10_000),
      seed: z
        .int()
        .min(0)
        .max(2 ** 32 - 1),
    })
    .partial()
    .optional(),
});
export type TrainingJob = z.input<typeof JobInput>;

/** What a caller did wrong. Across RPC only its name and message arrive. */
export class TrainingError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "TrainingError";
  }
}

interface Current {
  readonly id: string;
  readonly trainer: Trainer;
  readonly validation: readonly Example[];
  readonly abort: AbortController;
}

/**
 * Fine-tunes the embedded model, one job after another. A job survives the process: it goes on from its last
 * checkpoint and ends with the same bits. Its examples are gone when it is over.
 */
export class EmbeddedTrainer extends DurableObject {
  readonly #jobs: TrainingJobs;
  #current: Current | undefined;
  #tokenizer: Tokenizer | undefined;

  constructor(ctx: DurableObjectState, env: Cloudflare.Env) {
    super(ctx, env);
    this.#jobs = new TrainingJobs(ctx.storage.sql);
    if (this.#jobs.next()) void ctx.storage.setAlarm(Date.now()); // the process ended in the middle of a job
  }

  /** Puts a job in line. @throws TrainingError for bad input */
  async start(input: TrainingJob): Promise<JobStatus> {
    const parsed = JobInput.safeParse(input);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new TrainingError(`'${issue?.path.join(".") ?? ""}' ${issue?.message ?? "is wrong"}`);
    }
    const { id, model, training, validation, hyperparameters: chosen } = parsed.data;
    if (this.#jobs.find(id)) return this.#known(id);
    if (model !== TEXT_MODEL) throw new TrainingError(`the model ${model} cannot be trained here`);
    if (this.#jobs.waiting() >= MAX_OPEN_JOBS) throw new TrainingError(`${MAX_OPEN_JOBS} jobs wait already`);
    await this.#parse("training", training);
    if (validation !== undefined) await this.#parse("validation", validation);
    if (this.#jobs.find(id)) return this.#known(id); // the same call, at the same time
    const files = validation === undefined ? [training] : [training, validation];
    this.#jobs.add(id, hyperparameters(withoutUndefined(chosen ?? {})), files);
    await this.ctx.storage.setAlarm(Date.now());
    return this.#known(id);
  }

  /** @throws TrainingError for an unknown job */
  async status(id: string): Promise<JobStatus> {
    return this.#known(id);
  }

  /** At most a thousand of the steps after the one that is given. */
  async reports(id: string, afterStep = 0): Promise<readonly JobReport[]> {
    this.#known(id);
    return this.#jobs.reports(id, afterStep);
  }

  /** Before the next step of the work; a job that is over stays as it is. */
  async cancel(id: string): Promise<JobStatus> {
    this.#known(id);
    this.#leave(id);
    this.#jobs.end(id, "cancelled");
    return this.#known(id);
  }

  /** `adapter_config.json` and `adapter_model.safetensors` of a job that succeeded. */
  async artifacts(id: string): Promise<Readonly<Record<(typeof ADAPTER)[number], Uint8Array>>> {
    const { state } = this.#known(id);
    if (state !== "succeeded") throw new TrainingError(`the job has no adapter: it is ${state}`);
    const [settings, tensors] = ADAPTER;
    return { [settings]: this.#jobs.files.read(id, settings), [tensors]: this.#jobs.files.read(id, tensors) };
  }

  /** Forgets a job and everything of it. */
  async delete(id: string): Promise<void> {
    this.#leave(id);
    this.#jobs.delete(id);
  }

  /** Works on, from one checkpoint to the next. */
  override async alarm(): Promise<void> {
    const job = this.#jobs.next();
    if (!job) return;
    try {
      await this.#work(job);
    } catch (error) {
      if (this.#jobs.find(job.id)?.state === "running") {
        console.error("training failed", error);
        this.#jobs.end(job.id, "failed", error instanceof ExampleError ? error.message : "Internal error");
      }
      this.#leave(job.id);
    }
    if (this.#jobs.next()) await this.ctx.storage.setAlarm(Date.now());
  }

  async #work(job: JobStatus): Promise<void> {
    const { id, trainer, validation, abort } = await this.#load(job);
    if (this.#jobs.find(id)?.state !== "running") return this.#leave(id); // it was cancelled meanwhile
    if (validation.length > 0 && job.baseValidationLoss === null)
      this.#jobs.measuredBase(id, await trainer.validate(validation, abort.signal));
    const until = trainer.step + STEPS_PER_CHECKPOINT;
    while (!trainer.isDone && trainer.step < until) {
      const report = await trainer.advance(abort.signal);
      const isMeasured = validation.length > 0 && (trainer.isDone || report.step % STEPS_PER_VALIDATION === 0);
      const loss = isMeasured ? await trainer.validate(validation, abort.signal) : null;
      this.#jobs.report(id, report, loss);
    }
    abort.signal.throwIfAborted();
    this.ctx.storage.transactionSync(() => {
      if (!trainer.isDone) return this.#jobs.files.write(id, CHECKPOINT, trainer.checkpoint());
      const { config: settings, tensors } = serialisePeft(trainer.adapter(), TEXT_MODEL);
      this.#jobs.files.write(id, ADAPTER[0], settings);
      this.#jobs.files.write(id, ADAPTER[1], tensors);
      this.#jobs.end(id, "succeeded");
    });
    if (trainer.isDone) this.#leave(id);
  }

  /** The job as it is in memory, else from its last checkpoint. */
  async #load(job: JobStatus): Promise<Current> {
    const { id, hyperparameters: chosen } = job;
    if (this.#current?.id === id) return this.#current;
    this.#jobs.begin(id);
    const text = (name: string) => new TextDecoder().decode(this.#jobs.files.read(id, name));
    const [training, validation] = EXAMPLES;
    const examples = await this.#parse("training", text(training));
    const heldOut = this.#jobs.files.has(id, validation) ? await this.#parse("validation", text(validation)) : [];
    const weights = bindWeights(config, parseSafetensors(weightsFile));
    const trainer = new Trainer(kernel, weights, examples, chosen);
    if (this.#jobs.files.has(id, CHECKPOINT)) trainer.restore(this.#jobs.files.read(id, CHECKPOINT));
    this.#current = { id, trainer, validation: heldOut, abort: new AbortController() };
    return this.#current;
  }

  #leave(id: string): void {
    if (this.#current?.id !== id) return;
    this.#current.abort.abort();
    this.#current = undefined; // and with it its memory
  }

  #known(id: string): JobStatus {
    const job = this.#jobs.find(id);
    if (!job) throw new TrainingError(`no job ${id}`);
    return job;
  }

  async #parse(name: string, jsonl: string): Promise<Example[]> {
    try {
      this.#tokenizer ??= new Tokenizer(tokenizerFile satisfies TokenizerFile);
      return await parseExamples(jsonl, this.#tokenizer, config.max_position_embeddings);
    } catch (error) {
      if (error instanceof ExampleError) throw new TrainingError(`${name} ${error.message}`);
      throw error;
    }
  }
}

const withoutUndefined = <T extends object>(values: T) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
