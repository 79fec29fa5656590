/** What callers are told that an object was erased under; whoever asks again finds one that was never made. */
export const ERASED = "erased";

/**
 * Forgets everything an object stores, then the object itself, since its memory still knows. Nothing is delivered to it
 * in between: what was queued is told {@link ERASED}, and neither reads tables that are gone nor fills them anew.
 */
export function eraseObject(ctx: DurableObjectState): Promise<void> {
  const erased = Promise.withResolvers<void>();
  const block = ctx.blockConcurrencyWhile(async () => {
    await ctx.storage.deleteAll();
    erased.resolve(); // whoever asked for it is answered first
    setTimeout(() => ctx.abort(ERASED), 0);
    await new Promise(() => {});
  });
  block.catch(erased.reject); // not deleted: the object begins anew with what it has stored
  return erased.promise;
}
