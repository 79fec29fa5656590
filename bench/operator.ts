import type { Platform } from "../test/isolates.ts";

/** A tenant made for a benchmark. */
export interface BenchTenant {
  readonly projectId: string;
  readonly key: string;
}

/** @throws when the reply is an error */
export async function send<T>(url: string, key: string, body?: object, method = body ? "POST" : "GET"): Promise<T> {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const reply = await fetch(url, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
  if (!reply.ok) throw new Error(`${url} answered ${reply.status}: ${await reply.text()}`);
  return (await reply.json()) as T;
}

/** A tenant whose limits for this model are out of reach. */
export async function createTenant(
  { url, adminKey }: Pick<Platform, "url" | "adminKey">,
  model: string,
): Promise<BenchTenant> {
  const post = <T extends { id: string }>(path: string, body: object) => send<T>(`${url}/v1${path}`, adminKey, body);
  const { id } = await post("/organization/projects", { name: "bench" });
  const project = `/organization/projects/${id}`;
  const account = await post(`${project}/service_accounts`, { name: "bench", create_service_account_only: true });
  const accountKeys = `${project}/service_accounts/${account.id}/api_keys`;
  const { value: key } = await post<{ id: string; value: string }>(accountKeys, { name: "bench" });
  const limits = { max_requests_per_1_minute: 1_000_000_000, max_tokens_per_1_minute: 1_000_000_000 };
  await post(`${project}/rate_limits/rl-${model}`, limits);
  await post(`/tenantry/projects/${id}/limits`, { in_flight: 10_000, queue_length: 10_000 });
  return { projectId: id, key };
}
