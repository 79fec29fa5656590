import { Blobs } from "../blobs";
import type { Hyperparameters } from "./schedule";
import type { StepReport } from "./trainer";

const SCHEMA = `
  create table if not exists training_job (id text primary key, created integer not null, state text not null,
    hyperparameters text not null, base_validation_loss real, error text) without rowid;
  create table if not exists training_report (job text not null, step integer not null, loss real not null,
    learning_rate real not null, gradient_norm real not null, tokens integer not null, validation_loss real,
    primary key (job, step)) without rowid;`;
/** How far a job is comes from its reports: a step that a crash makes it do again counts once. */
const STATUS = `select *,
    (select max(step) from training_report where job = id) as step,
    (select sum(tokens) from training_report where job = id) as tokens,
    (select loss from training_report where job = id order by step desc limit 1) as loss,
    (select validation_loss from training_report where job = id and validation_loss is not null
      order by step desc limit 1) as validation_loss
  from training_job`;

/** What a job's files are called. */
export const EXAMPLES = ["training.jsonl", "validation.jsonl"] as const;
export const CHECKPOINT = "checkpoint.safetensors";
export const ADAPTER = ["adapter_config.json", "adapter_model.safetensors"] as const;

export type JobState = "queued" | "running" | "succeeded" | "failed" | "cancelled";

export interface JobStatus {
  readonly id: string;
  readonly state: JobState;
  readonly hyperparameters: Hyperparameters;
  /** Steps that are done. */
  readonly step: number;
  /** Tokens that were learned from, repetitions too. */
  readonly trainedTokens: number;
  /** Of the last batch, nats a token. */
  readonly loss: number | null;
  /** Of the held-out examples before any training; null without such. */
  readonly baseValidationLoss: number | null;
  readonly validationLoss: number | null;
  /** Why it failed. */
  readonly error: string | null;
}

export interface JobReport extends StepReport {
  /** Where it was measured after this step. */
  readonly validationLoss: number | null;
}

type Row = {
  readonly id: string;
  readonly state: JobState;
  readonly hyperparameters: string;
  readonly step: number | null;
  readonly tokens: number | null;
  readonly loss: number | null;
  readonly base_validation_loss: number | null;
  readonly validation_loss: number | null;
  readonly error: string | null;
};
type ReportRow = {
  readonly step: number;
  readonly loss: number;
  readonly learning_rate: number;
  readonly gradient_norm: number;
  readonly tokens: number;
  readonly validation_loss: number | null;
};

/** Training jobs and their files in an object's database, in the order in which they came. */
export class TrainingJobs {
  readonly files: Blobs;
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.files = new Blobs(sql);
    sql.exec(SCHEMA);
  }

  add(id: string, chosen: Hyperparameters, files: readonly string[]): void {
    for (const [index, name] of EXAMPLES.entries()) {
      const text = files[index];
      if (text !== undefined) this.files.write(id, name, new TextEncoder().encode(text));
    }
    this.#sql.exec(
      `insert into training_job (id, created, state, hyperparameters)
       values (?, (select coalesce(max(created), 0) + 1 from training_job), 'queued', ?)`,
      id,
      JSON.stringify(chosen),
    );
  }

  find(id: string): JobStatus | undefined {
    return this.#sql.exec<Row>(`${STATUS} where id = ?`, id).toArray().map(statusOf)[0];
  }

  /** The one to work on: it was begun, or has waited longest. */
  next(): JobStatus | undefined {
    const query = `${STATUS} where state in ('running', 'queued')
      order by state = 'queued', created limit 1`;
    return this.#sql.exec<Row>(query).toArray().map(statusOf)[0];
  }

  waiting(): number {
    const query = "select count(*) as count from training_job where state in ('running', 'queued')";
    return this.#sql.exec<{ count: number }>(query).one().count;
  }

  begin(id: string): void {
    this.#sql.exec("update training_job set state = 'running' where id = ? and state = 'queued'", id);
  }

  measuredBase(id: string, loss: number): void {
    this.#sql.exec("update training_job set base_validation_loss = ? where id = ?", loss, id);
  }

  /** In the place of what was reported of the same step before a crash. */
  report(id: string, report: StepReport, validationLoss: number | null): void {
    const { step, loss, learningRate, gradientNorm, tokens } = report;
    const row = [id, step, loss, learningRate, gradientNorm, tokens, validationLoss];
    this.#sql.exec("insert or replace into training_report values (?, ?, ?, ?, ?, ?, ?)", ...row);
  }

  /** In the end nobody needs the examples any more, and nobody can read them. */
  end(id: string, state: "succeeded" | "failed" | "cancelled", error: string | null = null): void {
    this.files.delete(id, ...EXAMPLES, CHECKPOINT);
    this.#sql.exec(
      `update training_job set state = ?, error = ? where id = ? and state in ('running', 'queued')`,
      ...[state, error, id],
    );
  }

  reports(id: string, afterStep: number): JobReport[] {
    const query = "select * from training_report where job = ? and step > ? order by step limit 1000";
    return this.#sql
      .exec<ReportRow>(query, id, afterStep)
      .toArray()
      .map(({ step, loss, learning_rate, gradient_norm, tokens, validation_loss }) => ({
        ...{ step, loss, tokens, learningRate: learning_rate, gradientNorm: gradient_norm },
        validationLoss: validation_loss,
      }));
  }

  delete(id: string): void {
    this.files.delete(id, ...EXAMPLES, CHECKPOINT, ...ADAPTER);
    this.#sql.exec("delete from training_report where job = ?", id);
    this.#sql.exec("delete from training_job where id = ?", id);
  }
}

const statusOf = (row: Row): JobStatus => ({
  ...{ id: row.id, state: row.state, step: row.step ?? 0, loss: row.loss, error: row.error },
  hyperparameters: JSON.parse(row.hyperparameters) as Hyperparameters,
  trainedTokens: row.tokens ?? 0,
  baseValidationLoss: row.base_validation_loss,
  validationLoss: row.validation_loss,
});
