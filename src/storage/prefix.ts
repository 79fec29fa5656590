/** Objects of one delete call, R2's own bound. */
const DELETE_SIZE = 1_000;

/** Every key under a tenant's prefix. */
export async function listPrefix(bucket: R2Bucket, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await bucket.list({ prefix, ...(cursor === undefined ? {} : { cursor }) });
    keys.push(...page.objects.map(({ key }) => key));
    cursor = page.truncated ? page.cursor : undefined;
  } while (cursor !== undefined);
  return keys;
}

export async function erasePrefix(bucket: R2Bucket, prefix: string): Promise<void> {
  const keys = await listPrefix(bucket, prefix);
  for (let from = 0; from < keys.length; from += DELETE_SIZE) await bucket.delete(keys.slice(from, from + DELETE_SIZE));
}
