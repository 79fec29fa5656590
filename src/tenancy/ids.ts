import { Buffer } from "node:buffer";

/** Every kind of id: what it names, and its prefix. Behind the prefix stand 144 random bits and nothing else. */
const PREFIXES = {
  project: "proj_",
  serviceAccount: "svc_",
  apiKey: "key_",
  auditEvent: "audit_log-",
  request: "req_",
  chatCompletion: "chatcmpl-",
  toolCall: "call_",
  response: "resp_",
  file: "file-",
  moderation: "modr-",
  functionCall: "fc_",
  endpoint: "ep_",
} as const;

export type IdKind = keyof typeof PREFIXES;

/** A new id of `kind`, 24 base64url characters behind its prefix. */
export function newId(kind: IdKind): string {
  return PREFIXES[kind] + Buffer.from(crypto.getRandomValues(new Uint8Array(18))).toString("base64url");
}
