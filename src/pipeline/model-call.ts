import type { CallEndpoint, ModelDispatcherRpc } from "../../durable-objects/model-dispatcher.messages";
import type { AdmitReply, GrantedLease, RateState, TenantGateRpc } from "../../durable-objects/tenant-gate.messages";
import type { LeaseBook } from "../core/lease-book";
import type { Tokenizers } from "../core/tokens/tokenizers";
import type { Verdict } from "../guard/moderation";
import type { Model, ModelCatalogue } from "../inference/catalogue";
import type { ChatDelta, Provider } from "../inference/provider";
import type { Authenticated, Opened } from "../tenancy/authenticate";
import type { Region, TenantContext } from "../tenancy/context";
import { choicesOf, type ModelRequest } from "./model-request";

/** What the pipeline needs of the platform; every tenant-bound part asks for a context. */
export interface PipelinePorts {
  readonly catalogue: ModelCatalogue;
  readonly gate: (context: TenantContext) => TenantGateRpc;
  readonly providerOf: (model: Model, address?: string) => Provider;
  readonly tokenizers: Tokenizers;
  readonly requestDeadlineMs: number;
  /** The dispatcher of a scarce model. */
  readonly dispatcher: (region: Region, model: Model) => ModelDispatcherRpc;
  /** What this isolate may admit by itself. */
  readonly leases: LeaseBook<LeaseTerms>;
  /** The gate has just said again that this key may call: its binding is as young as that. */
  readonly renewBinding: (caller: Authenticated, askedAtMs: number, policyVersion: number) => void;
}

/** What the grant of a lease said besides. */
export interface LeaseTerms {
  readonly price: GrantedLease["price"];
  /** The limits as they stood; headers show them until the gate is asked again. */
  readonly rates: readonly RateState[];
  /** The longest that its calls may wait for a slot of a scarce model. */
  readonly patienceMs: number;
}

/** What comes out of a model, token by token or at once. */
export type Output =
  | ChatDelta
  | { readonly type: "vectors"; readonly vectors: readonly (readonly number[])[] }
  | { readonly type: "verdicts"; readonly verdicts: readonly Verdict[] }
  /** Of one input; scores in the order of the labels, null where the model does not tell. */
  | {
      readonly type: "label";
      readonly input: number;
      readonly label: string;
      readonly scores: readonly number[] | null;
    };

/** What a call used, as its provider says or as it was counted here. */
export interface CallUsage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Part of the completion's; undefined where the provider does not tell. */
  readonly reasoningTokens?: number;
  /** True where the provider did not say and the tap's count stands in. */
  readonly estimated: boolean;
}

/** A usage as it is told. */
export interface ToldUsage extends CallUsage {
  /** Where a provider counts more than was reserved: nobody pays for more than that. */
  readonly billed?: Pick<CallUsage, "promptTokens" | "completionTokens">;
}

/** What was reserved for a call; `leaseId` where its isolate admitted it by itself. */
export interface Reservation extends Pick<Extract<AdmitReply, { admitted: true }>, "outputTokens" | "rates"> {
  readonly leaseId: string | null;
  readonly promptTokens: number;
}

/** What a call begins with. */
export interface CallStart {
  readonly id: string;
  readonly route: string;
  readonly caller: Authenticated;
  readonly request: ModelRequest;
  readonly ports: PipelinePorts;
  /** How long the caller is willing to wait for a slot. */
  readonly patienceMs: number;
  readonly startedAtMs: number;
  /** The gate has answered the call already, together with the question who calls. */
  readonly opened: Opened | undefined;
  /** Keeps the request's work alive after its reply. */
  readonly waitUntil: (promise: Promise<unknown>) => void;
}

/**
 * One request on its way through the stages. Each stage reads what earlier ones left and adds its own; asking for
 * something that no stage has left yet is a mistake in the route table, so it throws.
 */
export class ModelCall {
  #model: Model | undefined;
  #reservation: Reservation | undefined;
  #output: AsyncIterable<Output> | undefined;
  #usage: CallUsage | (() => CallUsage) = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, estimated: true };
  readonly #abort = new AbortController();
  /** Why the model was told to stop. */
  stoppedBy: "client" | "deadline" | "cap" | undefined;
  /** Settles when the call is settled, whatever way it ends; the request's `waitUntil` holds on to it. */
  readonly finished = Promise.withResolvers<void>();
  /** The provider reported a usage that cannot be true. */
  usageRejected = false;
  firstTokenMs: number | null = null;
  /** Where a slot of a scarce model is held, until it is freed. */
  slot: ModelDispatcherRpc | undefined;
  slotSeenAtMs = 0;
  /** Of its choices, that may run at once: on a scarce model as many as it has slots. */
  sequences = Number.POSITIVE_INFINITY;
  slotTimer: ReturnType<typeof setInterval> | undefined;
  /** Which of the model's endpoints the call goes to; null for a model whose one address is in the catalogue. */
  endpoint: CallEndpoint | null = null;
  /** The endpoint failed in the middle, when no other could take over any more. */
  endpointFailed = false;
  /** Of the decision record, once settled. */
  receipt: string | null = null;

  readonly id: string;
  readonly route: string;
  readonly caller: Authenticated;
  readonly request: ModelRequest;
  readonly ports: PipelinePorts;
  readonly patienceMs: number;
  readonly startedAtMs: number;
  readonly opened: Opened | undefined;
  readonly waitUntil: (promise: Promise<unknown>) => void;

  constructor(start: CallStart) {
    this.id = start.id;
    this.route = start.route;
    this.caller = start.caller;
    this.request = start.request;
    this.ports = start.ports;
    this.patienceMs = start.patienceMs;
    this.startedAtMs = start.startedAtMs;
    this.opened = start.opened;
    this.waitUntil = start.waitUntil;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }
  /** Stops the model; the first reason counts. */
  stop(by: "client" | "deadline" | "cap"): void {
    this.stoppedBy ??= by;
    this.#abort.abort();
  }

  get model(): Model {
    return left(this.#model, "resolve_model");
  }
  set model(model: Model) {
    this.#model = model;
  }
  get reservation(): Reservation {
    return left(this.#reservation, "reserve");
  }
  set reservation(reservation: Reservation) {
    this.#reservation = reservation;
  }
  /** As far as it is known; counted when it is asked for. */
  get usage(): CallUsage {
    return typeof this.#usage === "function" ? this.#usage() : this.#usage;
  }
  set usage(usage: CallUsage | (() => CallUsage)) {
    this.#usage = usage;
  }
  /** What the caller is told: what is booked, and what of it is billed where that is less. */
  get told(): ToldUsage {
    const { usage } = this;
    const { promptTokens, outputTokens } = this.reservation;
    const billed = {
      promptTokens: Math.min(usage.promptTokens, promptTokens),
      completionTokens: Math.min(usage.completionTokens, outputTokens * choicesOf(this.request)),
    };
    const isAll = billed.promptTokens === usage.promptTokens && billed.completionTokens === usage.completionTokens;
    return isAll ? usage : { ...usage, billed };
  }
  /** Whether the gate holds something for it. */
  get isReserved(): boolean {
    return this.#reservation !== undefined || this.opened?.admission.admitted === true;
  }
  /** The lease that it draws on, if it does. */
  get leaseId(): string | null {
    return this.#reservation?.leaseId ?? null;
  }
  /** Ends only after the call is settled. */
  get output(): AsyncIterable<Output> {
    return left(this.#output, "run");
  }
  set output(output: AsyncIterable<Output>) {
    this.#output = output;
  }
  get rates(): readonly RateState[] {
    return this.#reservation?.rates ?? [];
  }
}

function left<T>(value: T | undefined, stage: string): T {
  if (value === undefined) throw new TypeError(`stage ${stage} has not run; check the route's stages`);
  return value;
}
