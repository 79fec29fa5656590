import type { Dialect } from "../dialect";

/** Endpoints and models that an isolate remembers; the one that was asked for the longest ago is forgotten first. */
const MAX_REMEMBERED = 256;
/** Servers are updated: what one refused is tried again after this. */
const REMEMBERED_MS = 3_600_000;

/** What this isolate has learned of servers, by endpoint and model. Nothing of it is a tenant's. */
export class LearnedDialects {
  readonly #known = new Map<string, { readonly dialect: Dialect; readonly untilMs: number }>();

  constructor(readonly now: () => number = Date.now) {}

  recall(endpoint: string, model: string): Dialect | undefined {
    const key = keyOf(endpoint, model);
    const known = this.#known.get(key);
    if (!known) return undefined;
    this.#known.delete(key);
    if (known.untilMs <= this.now()) return undefined;
    this.#known.set(key, known); // the last asked for stands last
    return known.dialect;
  }

  /** Remembers what a server took; from then on for an hour. */
  remember(endpoint: string, model: string, dialect: Dialect): void {
    const key = keyOf(endpoint, model);
    this.#known.delete(key);
    this.#known.set(key, { dialect, untilMs: this.now() + REMEMBERED_MS });
    const [oldest] = this.#known.keys();
    if (this.#known.size > MAX_REMEMBERED && oldest !== undefined) this.#known.delete(oldest);
  }
}

const keyOf = (endpoint: string, model: string) => `${endpoint}\n${model}`;
