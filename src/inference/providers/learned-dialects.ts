import type { Dialect } from "../dialect";

/** Endpoints and models that an isolate remembers; the one that was asked for the longest ago is forgotten first. */
const MAX_REMEMBERED = 256;
/** Servers are updated: what one refused is tried again after this, at the latest. */
const REMEMBERED_MS = 3_600_000;
/** Calls until what was learned is doubted; twice as many each time that it proves true. */
const FIRST_TRUST_CALLS = 3;
const MAX_TRUST_CALLS = 4_096;

interface Learned {
  readonly dialect: Dialect;
  readonly untilMs: number;
  readonly trustCalls: number;
  callsLeft: number;
  isDoubted: boolean;
}

/** `trusted` is how to ask; `doubted` is what was known, where this call shall ask as if nothing were. */
export interface Recalled {
  readonly trusted?: Dialect;
  readonly doubted?: Dialect;
}

/**
 * What this isolate has learned of servers, by endpoint and model. Nothing of it is a tenant's. It is doubted now and
 * then, since a poorer dialect costs something (a stream without usage is counted by estimate) and servers change: one
 * call asks as if nothing were known, and what is refused again is believed for longer.
 */
export class LearnedDialects {
  readonly #known = new Map<string, Learned>();

  constructor(readonly now: () => number = Date.now) {}

  recall(endpoint: string, model: string): Recalled {
    const key = keyOf(endpoint, model);
    const known = this.#known.get(key);
    if (!known) return {};
    this.#known.delete(key);
    if (known.untilMs <= this.now()) return {};
    this.#known.set(key, known); // the last asked for stands last
    if (known.callsLeft > 0) {
      known.callsLeft--;
      return { trusted: known.dialect };
    }
    known.callsLeft = known.trustCalls; // others go on as before while one call asks
    known.isDoubted = true;
    return { doubted: known.dialect };
  }

  /** A server took a call in this dialect after it had refused another. */
  remember(endpoint: string, model: string, dialect: Dialect): void {
    const key = keyOf(endpoint, model);
    const before = this.#known.get(key);
    const isProven = before?.isDoubted && JSON.stringify(before.dialect) === JSON.stringify(dialect);
    const trustCalls = isProven ? Math.min(before.trustCalls * 2, MAX_TRUST_CALLS) : FIRST_TRUST_CALLS;
    const learned = {
      dialect,
      untilMs: this.now() + REMEMBERED_MS,
      trustCalls,
      callsLeft: trustCalls,
      isDoubted: false,
    };
    this.#known.delete(key);
    this.#known.set(key, learned);
    const [oldest] = this.#known.keys();
    if (this.#known.size > MAX_REMEMBERED && oldest !== undefined) this.#known.delete(oldest);
  }

  /** A server took what it had refused before. */
  forget(endpoint: string, model: string): void {
    this.#known.delete(keyOf(endpoint, model));
  }

  /** The call held nothing of what is doubted: the next one shall ask. */
  doubtNext(endpoint: string, model: string): void {
    const known = this.#known.get(keyOf(endpoint, model));
    if (known) known.callsLeft = 0;
  }
}

const keyOf = (endpoint: string, model: string) => `${endpoint}\n${model}`;
