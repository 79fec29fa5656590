import type { GrantedLease, RateState } from "../../durable-objects/tenant-gate.messages";
import { costOfDraw } from "../core/gate-leases";
import { objectName } from "../core/object-name";
import type { LeaseTerms, ModelCall, Reservation } from "./model-call";

/** What a lease is for: calls of one key to one model in one tier. An end user's calls ask the gate, each of them. */
export function leaseName({ caller, model, request }: ModelCall): string | undefined {
  const { context } = caller;
  if (context.actor.type !== "api_key") return undefined;
  return JSON.stringify([objectName(context), context.actor.keyId, model.name, request.serviceTier, request.kind]);
}

/** The part of a call that a limit asks for. */
export interface Need {
  readonly promptTokens: number;
  /** Cap per choice. */
  readonly outputTokens: number;
  readonly choices: number;
}

/** Admits a call without asking the gate, where this isolate has a lease with room for its worst case. */
export function drawOnLease(call: ModelCall, need: Need): Reservation | undefined {
  const name = leaseName(call);
  if (name === undefined) return undefined;
  // The lease is held for as long as the call that fetched it could wait for a slot of the model.
  const costOf = ({ price, patienceMs }: LeaseTerms) =>
    call.patienceMs > patienceMs ? undefined : costOfDraw({ ...need, price });
  const draw = call.ports.leases.draw(name, call.id, costOf, Date.now());
  if (!draw) return undefined;
  const { outputTokens, promptTokens } = need;
  return { outputTokens, promptTokens, rates: draw.extra.rates, leaseId: draw.leaseId };
}

/** How many draws to ask for beside a call. */
export function wantedDraws(call: ModelCall): number {
  const name = leaseName(call);
  return name === undefined ? 0 : call.ports.leases.wanted(name, Date.now());
}

/**
 * Keeps a lease for this isolate's next calls, and gives back what is left of it when its draw time ends. The request
 * that fetched it does that, because timers and calls belong to requests.
 */
export function keepLease(call: ModelCall, lease: GrantedLease, rates: readonly RateState[], askedAtMs: number): void {
  const name = leaseName(call);
  if (name === undefined) return;
  const { leases, gate } = call.ports;
  const { id, draws, tokens, microdollars, price } = lease;
  const openMs = leases.put(
    name,
    { id, draws, tokens, microdollars, extra: { price, rates, patienceMs: call.patienceMs } },
    askedAtMs,
    Date.now(),
  );
  call.waitUntil(
    (async () => {
      await new Promise((settle) => setTimeout(settle, openMs));
      const running = leases.close(id).map(({ requestId, cost }) => ({ requestId, ...cost }));
      // Unheard, it stays held until its time is over: silence means spent.
      await gate(call.caller.context)
        .returnLease({ leaseId: id, running })
        .catch(() => {});
    })(),
  );
}
