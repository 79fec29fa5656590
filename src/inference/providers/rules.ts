import { moderateByRules } from "../../guard/moderation-rules";
import { type Provider, ProviderError } from "../provider";

const notAModel = () => Promise.reject(new ProviderError("unknown_model", "rules judge texts and do nothing else"));

/** The platform's own rules in the place of a safety model. */
export const rules: Provider = {
  chat: notAModel,
  embed: notAModel,
  moderate: async ({ inputs }) => ({ verdicts: inputs.map(moderateByRules), promptTokens: null }),
};
