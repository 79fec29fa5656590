import OpenAI from "openai";
import { checked } from "./contract/contract";

/** A tenant made for one test, and what is needed to call as it. */
export interface TestTenant {
  readonly projectId: string;
  readonly serviceAccountId: string;
  readonly keyId: string;
  readonly key: string;
  /** The unmodified official client; every reply is checked against the contract on its way. */
  readonly client: OpenAI;
}

/** The operator of a running platform, through the official client. */
export class Operator {
  readonly client: OpenAI;

  constructor(
    readonly url: string,
    readonly adminKey: string,
  ) {
    this.client = clientOf(url, { adminAPIKey: adminKey, apiKey: null });
  }

  get #projects() {
    return this.client.admin.organization.projects;
  }

  async createTenant(
    options: { readonly requestsPerMinute?: number; readonly tokensPerMinute?: number; readonly model?: string } = {},
  ): Promise<TestTenant> {
    const project = await this.#projects.create({ name: `Test ${crypto.randomUUID()}` });
    return this.furnish(project.id, options);
  }

  /** Gives an empty project an account, a key and limits. */
  async furnish(
    projectId: string,
    options: { readonly requestsPerMinute?: number; readonly tokensPerMinute?: number; readonly model?: string } = {},
  ): Promise<TestTenant> {
    const account = await this.#projects.serviceAccounts.create(projectId, {
      name: "test",
      create_service_account_only: true,
    });
    const issued = await this.#projects.serviceAccounts.apiKeys.create(account.id, {
      project_id: projectId,
      name: "test",
      scopes: ["data", "account"],
    });
    const { requestsPerMinute, tokensPerMinute, model = "tiny-support-lm" } = options;
    if (requestsPerMinute !== undefined || tokensPerMinute !== undefined) {
      await this.#projects.rateLimits.updateRateLimit(`rl-${model}`, {
        project_id: projectId,
        ...(requestsPerMinute === undefined ? {} : { max_requests_per_1_minute: requestsPerMinute }),
        ...(tokensPerMinute === undefined ? {} : { max_tokens_per_1_minute: tokensPerMinute }),
      });
    }
    const client = clientOf(this.url, { apiKey: issued.value });
    return { projectId, serviceAccountId: account.id, keyId: issued.id, key: issued.value, client };
  }

  /** Requests and tokens of a project, as the organization's usage shows them. */
  async usage(projectId: string) {
    const start = Math.floor(Date.now() / 1000) - 86_400;
    const page = await this.client.admin.organization.usage.completions({
      start_time: start,
      project_ids: [projectId],
      bucket_width: "1d",
    });
    const results = page.data.flatMap((bucket) => bucket.results) as {
      num_model_requests: number;
      input_tokens: number;
      output_tokens: number;
    }[];
    const sum = (of: (result: (typeof results)[number]) => number) =>
      results.reduce((total, one) => total + of(one), 0);
    return {
      requests: sum((one) => one.num_model_requests),
      inputTokens: sum((one) => one.input_tokens),
      outputTokens: sum((one) => one.output_tokens),
    };
  }
}

/** The official client with default settings, but for the address and the check of every reply. */
export function clientOf(url: string, keys: { apiKey: string | null; adminAPIKey?: string }, more = {}): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, ...keys, fetch: checked(fetch), ...more });
}
