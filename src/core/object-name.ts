/**
 * Names of per-tenant objects: `<region>/<tenant>`, from the first day, so that residency is a matter of
 * configuration. Neither part can contain a slash, so no two pairs share a name. Version 1.
 */
export interface ObjectAddress {
  readonly region: string;
  readonly tenantId: string;
}

/** @throws TypeError when a part is not of the alphabet `A-Za-z0-9_-` */
export function objectName({ region, tenantId }: ObjectAddress): string {
  if (!PART.test(region) || !PART.test(tenantId)) throw new TypeError(`not an object address: ${region}, ${tenantId}`);
  return `${region}/${tenantId}`;
}

/** @throws TypeError when `name` is not one that {@link objectName} makes */
export function parseObjectName(name: string): ObjectAddress {
  const [region, tenantId, ...rest] = name.split("/");
  if (!region || !tenantId || rest.length > 0 || !PART.test(region) || !PART.test(tenantId)) {
    throw new TypeError(`not an object name: ${name}`);
  }
  return { region, tenantId };
}

const PART = /^[A-Za-z0-9_-]{1,128}$/; // without the m flag, $ is the end and no line break before it
