import { ERASED } from "../../durable-objects/erasure";

/** Calls of one method that may fall together with an erasure; a purge that is repeated erases again. */
const MAX_ATTEMPTS = 3;

/**
 * Reaches an object by stubs that live for one call each. A call that was queued on the object while it was erased is
 * asked again, of an object that was never made: so an erased object answers like one that never existed.
 */
export function acrossErasure<Rpc extends object>(stub: () => Rpc): Rpc {
  const call = async (method: string, args: readonly unknown[]): Promise<unknown> => {
    for (let attempt = 1; ; attempt++) {
      try {
        const object = stub() as unknown as Readonly<Record<string, (...args: readonly unknown[]) => Promise<unknown>>>;
        return await object[method]?.(...args);
      } catch (error) {
        if (attempt === MAX_ATTEMPTS || !wasErased(error)) throw error;
      }
    }
  };
  return new Proxy({} as Rpc, {
    get: (_, method) =>
      typeof method !== "string" || method === "then" ? undefined : (...args: unknown[]) => call(method, args),
  });
}

const wasErased = (error: unknown): boolean => error instanceof Error && error.message === ERASED;
