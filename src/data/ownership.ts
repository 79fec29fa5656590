import type { Tables } from "./dialect";

/**
 * Whose the rows of each table are, in the order in which they may be removed: dependants before what they refer to.
 * A table that stands in neither list does not compile. `name` is the column that a row is listed by.
 */
export const TENANT_TABLES = {
  apiKey: { name: "id" },
  serviceAccount: { name: "id" },
  journalSegment: { name: "objectKey" },
  artifact: { name: "id" },
  file: { name: "id" },
  storageUse: { name: "kind" },
} as const satisfies { readonly [K in keyof Tables]?: { readonly name: keyof Tables[K]["_"]["columns"] } };

/** The operator's, under the tenant `platform`; `about` is the column that says which tenant a row tells of. */
export const OPERATOR_TABLES = {
  project: { name: "id", about: "id" },
  auditLog: { name: "id", about: "projectId" },
  usageRollup: { name: "hourMs", about: "projectId" },
} as const satisfies {
  readonly [K in keyof Tables]?: {
    readonly name: keyof Tables[K]["_"]["columns"];
    readonly about: keyof Tables[K]["_"]["columns"];
  };
};

type Homeless = Exclude<keyof Tables, keyof typeof TENANT_TABLES | keyof typeof OPERATOR_TABLES>;
/** Names the tables that are still without an owner. */
export const EVERY_TABLE_HAS_AN_OWNER: [Homeless] extends [never] ? true : Homeless = true;

export const tenantTables = (tables: Tables) =>
  (Object.keys(TENANT_TABLES) as (keyof typeof TENANT_TABLES)[]).map((key) => tables[key]);
