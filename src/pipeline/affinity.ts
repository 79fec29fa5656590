import { Buffer } from "node:buffer";
import type { ChatMessage } from "../inference/provider";
import type { TenantContext } from "../tenancy/context";

/**
 * Whose prompts a provider may treat as beginning alike: those of one end user, else of the tenant's own keys, to one
 * model, with the same first message. Made here and never taken from a caller, so nobody can find out by timing what another tenant, or another end user of the same one, asks; and
 * finer than the tenant, so that a large one is not sent to a single instance.
 * @returns 32 hexadecimal digits
 */
export async function promptAffinity(
  { tenantId, actor }: TenantContext,
  model: string,
  messages: readonly ChatMessage[],
): Promise<string> {
  const endUser = actor.type === "end_user" ? actor.subject : null;
  const text = JSON.stringify([tenantId, endUser, model, messages[0]?.role, messages[0]?.content]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Buffer.from(digest).toString("hex").slice(0, 32);
}
