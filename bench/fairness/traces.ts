/** What stands in traces.json: with its seed, a trace is made from it the same way every time. */
export interface Client {
  readonly tenant: string;
  /** Requests a second, Poisson. */
  readonly rate: number;
  readonly onSeconds?: number;
  readonly offSeconds?: number;
  /** The rate grows from nothing over this time. */
  readonly rampSeconds?: number;
  readonly keys?: number;
  readonly weight?: number;
  readonly input: number;
  readonly output: number;
}
export interface Scenario {
  readonly name: string;
  readonly about: string;
  readonly seed: number;
  readonly seconds: number;
  readonly clients?: readonly Client[];
  readonly zipf?: { readonly clients: number; readonly rate: number; readonly input: number; readonly output: number };
}
export interface Arrival {
  readonly id: string;
  readonly atMs: number;
  readonly tenant: string;
  readonly key: string;
  readonly weight: number;
  readonly input: number;
  readonly output: number;
}

/** Mulberry32: small, seeded, good enough for arrivals. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function clientsOf({ clients = [], zipf }: Scenario): readonly Client[] {
  if (!zipf) return clients;
  const weights = Array.from({ length: zipf.clients }, (_, index) => 1 / (index + 1));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight, index) => ({
    tenant: `client ${String(index + 1).padStart(2, "0")}`,
    rate: (zipf.rate * weight) / sum,
    input: zipf.input,
    output: zipf.output,
  }));
}

/** The arrivals of a scenario, in order of time. */
export function arrivalsOf(scenario: Scenario): Arrival[] {
  const next = random(scenario.seed);
  const arrivals: Arrival[] = [];
  for (const client of clientsOf(scenario)) {
    const { tenant, rate, onSeconds, offSeconds = 0, rampSeconds, keys = 1, weight = 1, input, output } = client;
    for (let at = 0, made = 0; ; made++) {
      at += -Math.log(1 - next()) / rate;
      if (at >= scenario.seconds) break;
      // Thinned by what the client's own pattern leaves of its rate at that time.
      const isOn = onSeconds === undefined || at % (onSeconds + offSeconds) < onSeconds;
      const kept = rampSeconds === undefined || next() < at / rampSeconds;
      if (!isOn || !kept) continue;
      const key = `${tenant}/${made % keys}`;
      arrivals.push({ id: `${tenant} ${made}`, atMs: at * 1000, tenant, key, weight, input, output });
    }
  }
  return arrivals.sort((a, b) => a.atMs - b.atMs);
}
