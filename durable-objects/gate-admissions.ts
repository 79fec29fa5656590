import type { AdmissionBook, AdmissionRequest, Hold, Refusal } from "../src/core/admission-book";
import type { PolicySnapshot } from "../src/core/policy";
import type { CallFacts } from "../src/core/records";
import { relimited } from "./admission";
import { RoomWaiters } from "./room-waiters";

/** How asking ended; `left` where the caller went away while it waited. */
export type Verdict = { readonly hold: Hold<CallFacts> } | { readonly refusal: Refusal } | { readonly left: true };

/** What waiting callers need of their gate. */
export interface AdmissionHooks {
  /** A hold may be overdue by then. */
  readonly holdDue: (dueMs: number) => void;
  /** Time to look at whose patience has ended. */
  readonly expire: () => void;
}

/** Callers that wait for a lease to come back; whoever comes on top is refused at once. */
const MAX_ROOM_WAITERS = 5_000;
/** While leases are out, those who wait look this often whether one of them is given up. */
const LOOK_MS = 100;

/**
 * The admission book with callers behind it: those who wait for a slot, and those who wait for what lies unused in a
 * lease. Everything that waits, waits inside the object; the book itself knows no promises.
 */
export class GateAdmissions {
  readonly #book: AdmissionBook<CallFacts>;
  readonly #hooks: AdmissionHooks;
  readonly #waiting = new Map<string, (verdict: Verdict) => void>();
  readonly #room = new RoomWaiters();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isLookingAgain = false;

  constructor(book: AdmissionBook<CallFacts>, hooks: AdmissionHooks) {
    this.#book = book;
    this.#hooks = hooks;
  }

  /**
   * Nobody is refused because of what lies unused in a lease: it comes back within a second, and the one that came
   * first is asked first again. Asked for one request by one caller at a time.
   */
  async decide(request: AdmissionRequest<CallFacts>): Promise<Verdict> {
    const { requestId, giveUpAtMs } = request;
    let rule: string | undefined;
    try {
      for (;;) {
        const nowMs = Date.now();
        const verdict = await this.#decide(request, nowMs);
        if (!("refusal" in verdict) || verdict.refusal.neverFits || nowMs >= giveUpAtMs) return verdict;
        const isFull = rule === undefined && this.#room.size >= MAX_ROOM_WAITERS;
        if (isFull || !this.#book.mayBeReturned(verdict.refusal.key, nowMs)) return verdict;
        rule = verdict.refusal.key;
        this.#lookAgain();
        if (await this.#room.wait(requestId, rule)) return { left: true };
      }
    } finally {
      this.#room.remove(requestId);
      if (rule !== undefined) this.#room.wakeFirst(rule);
    }
  }

  /** The caller of a waiting request has gone. */
  leave(requestId: string): void {
    if (this.#book.leave(requestId)) this.#tell(requestId, { left: true });
    this.#room.leave(requestId);
  }

  /** Something may have been freed: whoever is next gets it. */
  grantWaiting(): void {
    for (const verdict of this.#book.grantWaiting(Date.now())) {
      if ("hold" in verdict) this.#hooks.holdDue(verdict.hold.expiresAtMs);
      this.#tell(verdict.requestId, verdict);
    }
    this.#room.wakeFirstOfEach();
  }

  /** Those who wait are judged by the limits of now, not by those of their arrival. */
  relimit(policy: PolicySnapshot): void {
    this.#book.relimit((request) => relimited(policy, request));
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
    this.#waiting.set(request.requestId, waiting.resolve);
    this.#wakeForWaiting();
    return waiting.promise;
  }

  #tell(requestId: string, verdict: Verdict): void {
    this.#waiting.get(requestId)?.(verdict);
    this.#waiting.delete(requestId);
  }

  /** A lease that does not come back makes room only in the eyes of the clock. */
  #lookAgain(): void {
    if (this.#isLookingAgain) return;
    this.#isLookingAgain = true;
    setTimeout(() => {
      this.#isLookingAgain = false;
      this.#room.wakeAll();
    }, LOOK_MS);
  }

  /** Callers that wait hold the object awake, so their patience needs a timer, not an alarm. */
  #wakeForWaiting(): void {
    clearTimeout(this.#timer);
    const nextMs = this.#book.nextGiveUpMs();
    if (nextMs === undefined) return;
    this.#timer = setTimeout(this.#hooks.expire, Math.max(0, nextMs - Date.now()));
  }
}
