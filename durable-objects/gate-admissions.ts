import type { AdmissionBook, AdmissionRequest, Hold, Refusal } from "../src/core/admission-book";
import { LATE_MS } from "../src/core/gate-leases";
import type { PolicySnapshot } from "../src/core/policy";
import type { CallFacts } from "../src/core/records";
import { relimited } from "./admission";

/** How asking ended; `left` where the caller went away while it waited. */
export type Verdict = { readonly hold: Hold<CallFacts> } | { readonly refusal: Refusal } | { readonly left: true };

/** What waiting callers need of their gate. */
export interface AdmissionHooks {
  /** A hold may be overdue by then. */
  readonly holdDue: (dueMs: number) => void;
  /** Time to look at whose patience has ended. */
  readonly expire: () => void;
}

/**
 * The admission book with callers behind it: those who wait for a slot, and those who wait for what lies unused in a
 * lease. Everything that waits, waits inside the object; the book itself knows no promises.
 */
export class GateAdmissions {
  readonly #book: AdmissionBook<CallFacts>;
  readonly #hooks: AdmissionHooks;
  readonly #waiting = new Map<string, (verdict: Verdict) => void>();
  readonly #returns: (() => void)[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(book: AdmissionBook<CallFacts>, hooks: AdmissionHooks) {
    this.#book = book;
    this.#hooks = hooks;
  }

  /**
   * Nobody is refused because of what lies unused in a lease: it comes back within a second, and the one that came
   * first is asked first again.
   */
  async decide(asked: AdmissionRequest<CallFacts>): Promise<Verdict> {
    for (;;) {
      const nowMs = Date.now();
      const verdict = await this.#decide(asked, nowMs);
      if (!("refusal" in verdict) || verdict.refusal.neverFits || nowMs >= asked.giveUpAtMs) return verdict;
      if (!this.#book.mayBeReturned(verdict.refusal.key, nowMs)) return verdict;
      await this.#leaseReturned();
    }
  }

  /** The caller of a waiting request has gone. */
  leave(requestId: string): void {
    if (this.#book.leave(requestId)) this.#tell(requestId, { left: true });
  }

  /** Something may have been freed: whoever is next gets it. */
  grantWaiting(): void {
    for (const verdict of this.#book.grantWaiting(Date.now())) {
      if ("hold" in verdict) this.#hooks.holdDue(verdict.hold.expiresAtMs);
      this.#tell(verdict.requestId, verdict);
    }
  }

  /** Those who wait are judged by the limits of now, not by those of their arrival. */
  relimit(policy: PolicySnapshot): void {
    this.#book.relimit((request) => relimited(policy, request));
    this.grantWaiting();
  }

  /** Something of a lease came back. */
  leaseIsBack(): void {
    this.#wakeReturns();
    this.grantWaiting();
  }

  gaveUp(refused: readonly { readonly requestId: string; readonly refusal: Refusal }[]): void {
    for (const { requestId, refusal } of refused) this.#tell(requestId, { refusal });
    this.grantWaiting();
    this.#wakeForWaiting();
  }

  #decide(request: AdmissionRequest<CallFacts>, nowMs: number): Verdict | Promise<Verdict> {
    const decided = this.#book.admit(request, nowMs);
    if (decided.verdict === "granted") {
      this.#hooks.holdDue(decided.hold.expiresAtMs);
      return { hold: decided.hold };
    }
    if (decided.verdict === "refused") return { refusal: decided.refusal };
    const waiting = Promise.withResolvers<Verdict>();
    // A caller that asks again because its first answer is late waits beside its first call.
    const earlier = this.#waiting.get(request.requestId);
    this.#waiting.set(request.requestId, (verdict) => {
      earlier?.(verdict);
      waiting.resolve(verdict);
    });
    this.#wakeForWaiting();
    return waiting.promise;
  }

  #tell(requestId: string, verdict: Verdict): void {
    this.#waiting.get(requestId)?.(verdict);
    this.#waiting.delete(requestId);
  }

  /** Settles when something of a lease came back, or when it is time to look again. */
  #leaseReturned(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#returns.push(resolve);
    if (this.#returns.length === 1) setTimeout(() => this.#wakeReturns(), LATE_MS / 4);
    return promise;
  }

  #wakeReturns(): void {
    for (const wake of this.#returns.splice(0)) wake();
  }

  /** Callers that wait hold the object awake, so their patience needs a timer, not an alarm. */
  #wakeForWaiting(): void {
    clearTimeout(this.#timer);
    const nextMs = this.#book.nextGiveUpMs();
    if (nextMs === undefined) return;
    this.#timer = setTimeout(this.#hooks.expire, Math.max(0, nextMs - Date.now()));
  }
}
