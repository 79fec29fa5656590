import type { ObjectHome, SegmentStore } from "../../durable-objects/ports";
import { type ObjectAddress, objectName } from "../core/object-name";

/** The R2 prefix under which a tenant's sealed journal lies. Version 1. */
export const journalPrefix = (tenant: ObjectAddress): string => `${objectName(tenant)}/journal/v1/`;

/**
 * A tenant's sealed journal segments in R2.
 * @param manifest writes the row that makes the object findable; after the object, so that a row never dangles
 */
export function segmentStore(stores: {
  readonly bucket: (tenant: ObjectAddress) => R2Bucket;
  readonly manifest: (tenant: ObjectHome, segment: Parameters<SegmentStore["put"]>[1]) => Promise<void>;
}): SegmentStore {
  return {
    async put(tenant, segment, sealed) {
      await stores.bucket(tenant).put(segment.objectKey, sealed);
      await stores.manifest(tenant, segment);
    },
    async get(tenant, segment) {
      if (!segment.objectKey.startsWith(journalPrefix(tenant))) throw new TypeError("segment of another tenant");
      const object = await stores.bucket(tenant).get(segment.objectKey);
      if (!object) throw new Error(`journal segment ${segment.objectKey} is missing`);
      return new Uint8Array(await object.arrayBuffer());
    },
  };
}
