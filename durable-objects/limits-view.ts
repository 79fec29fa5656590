import type { AdmissionBook, RateRule } from "../src/core/admission-book";
import type { LimitRule, PolicySnapshot } from "../src/core/policy";
import { modelRates, monthlySpend, ruleOf } from "./admission";
import type { LimitState } from "./tenant-gate.messages";

/** Windows of one rule that counts for each key or end user by itself; a longer list helps nobody. */
const MAX_SUBJECTS = 100;

type Listed = Pick<LimitState, "model" | "scope" | "subject" | "period"> & { readonly rule: RateRule };

/** Every rule of a tenant and where it stands. */
export function limitStates(
  policy: PolicySnapshot,
  book: AdmissionBook<unknown>,
  models: readonly string[],
  nowMs: number,
): LimitState[] {
  const listed = [...modelRules(policy, models), ...spendRules(policy), ...ownRules(policy, book)];
  const states = book.rates(
    listed.map(({ rule }) => rule),
    nowMs,
  );
  return listed.flatMap(({ rule: _, ...about }, index) => {
    const state = states[index];
    return state ? [{ ...state, ...about }] : [];
  });
}

function modelRules(policy: PolicySnapshot, models: readonly string[]): Listed[] {
  const names = new Set([...models, ...Object.keys(policy.limits.models)]);
  return [...names].flatMap((model) =>
    modelRates(policy, model).map((rule) => ({ rule, model, scope: "model", subject: null, period: "minute" })),
  );
}

const spendRules = (policy: PolicySnapshot): Listed[] =>
  monthlySpend(policy).map((rule) => ({ rule, model: null, scope: "project", subject: null, period: "month" }));

function ownRules(policy: PolicySnapshot, book: AdmissionBook<unknown>): Listed[] {
  return policy.limits.rules.flatMap((rule) =>
    subjectsOf(rule, book).map((who) => ({
      rule: ruleOf(rule, who ?? ""),
      model: null,
      scope: rule.scope,
      subject: who,
      period: rule.window,
    })),
  );
}

/** Those who have counted something, where each counts for itself. */
function subjectsOf(rule: LimitRule, book: AdmissionBook<unknown>): (string | null)[] {
  if (rule.scope === "project" || rule.subject !== null) return [rule.subject];
  const prefix = ruleOf(rule, "").key;
  return book.windowKeys(prefix, MAX_SUBJECTS).map((key) => key.slice(prefix.length));
}
