/**
 * The one path of a request, stage by stage. Every route passes a part of it, in this order; stages that a later
 * feature brings have their place already, and enter a route's list with the work that builds them.
 */
export const STAGE_ORDER = [
  "authenticate", // who calls
  "bind", // key status and policy in force, from the tenant's gate
  "validate", // the body, and the parameters
  "resolve_model", // public name → catalogue entry; later also adapter and prompt version
  "residency", // may this model see this tenant's data
  "cache_lookup",
  "guard_input",
  "reserve", // worst case of tokens (later: money), a slot; may wait in the tenant's line
  "dispatch", // fair share of scarce models between tenants
  "run",
  "guard_output",
  "meter", // counts at the tap, cuts what exceeds the cap
  "settle", // settlement, usage event and decision record, durable before the caller has the end
] as const;
export type Stage = (typeof STAGE_ORDER)[number];

/** Stages of an administrative or reading route. */
export const CONTROL_STAGES = ["authenticate", "bind", "validate"] as const satisfies readonly Stage[];

/** Stages that let a model call in, for whoever runs it later. */
export const ADMISSION_STAGES = ["resolve_model", "residency", "reserve"] as const satisfies readonly Stage[];

/** Stages of a model call. */
export const INFERENCE_STAGES = [
  "authenticate",
  "bind",
  "validate",
  "resolve_model",
  "residency",
  "reserve",
  "dispatch",
  "run",
  "meter",
  "settle",
] as const satisfies readonly Stage[];
