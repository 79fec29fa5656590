import { WorkerEntrypoint } from "cloudflare:workers";
import type { EmbeddedTrainer, TrainingJob } from "./embedded-trainer";

interface Env {
  readonly EMBEDDED_TRAINER: DurableObjectNamespace<EmbeddedTrainer>;
}

/** Fine-tunes the embedded model, as a trainer with a GPU does for larger ones. */
export class LocalTrainer extends WorkerEntrypoint<Env> {
  start(job: TrainingJob) {
    return this.#trainer.start(job);
  }

  status(id: string) {
    return this.#trainer.status(id);
  }

  reports(id: string, afterStep?: number) {
    return this.#trainer.reports(id, afterStep);
  }

  cancel(id: string) {
    return this.#trainer.cancel(id);
  }

  artifacts(id: string) {
    return this.#trainer.artifacts(id);
  }

  delete(id: string) {
    return this.#trainer.delete(id);
  }

  get #trainer() {
    return this.env.EMBEDDED_TRAINER.getByName("embedded");
  }
}
