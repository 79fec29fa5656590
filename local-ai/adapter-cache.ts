import type { LoraAdapter } from "./adapter";
import type { Decoder } from "./decoder";

interface Loaded {
  readonly id: string;
  readonly handle: number;
  users: number;
}

/** An adapter in use. Whoever takes it gives it back. */
export interface Lease {
  readonly handle: number;
  release(): void;
}

/**
 * Adapters in the decoder's memory, the ones used last. Those in use are never evicted; when what is in use leaves no
 * room for one more, the call is refused and can be tried again.
 */
export class AdapterCache {
  readonly #decoder: Decoder;
  /** In the order of their last use. */
  readonly #loaded = new Map<string, Loaded>();
  readonly #loading = new Map<string, Promise<LoraAdapter>>();

  constructor(decoder: Decoder) {
    this.#decoder = decoder;
  }

  get size(): number {
    return this.#loaded.size;
  }

  /**
   * @param load reads an adapter that is not loaded; asked once for all who wait for it
   * @returns undefined when there is no room
   */
  async take(id: string, load: () => Promise<LoraAdapter>): Promise<Lease | undefined> {
    const known = this.#loaded.get(id);
    if (known) return this.#lease(known);
    const loading = this.#loading.get(id) ?? load().finally(() => this.#loading.delete(id));
    this.#loading.set(id, loading);
    const adapter = await loading;
    const meanwhile = this.#loaded.get(id);
    if (meanwhile) return this.#lease(meanwhile);
    const handle = this.#place(adapter);
    if (handle === undefined) return undefined;
    const loaded: Loaded = { id, handle, users: 0 };
    this.#loaded.set(id, loaded);
    return this.#lease(loaded);
  }

  /** Forgets all that nobody uses. */
  clear(): void {
    for (const { id, handle, users } of this.#loaded.values()) {
      if (users > 0) continue;
      this.#loaded.delete(id);
      this.#decoder.freeAdapter(handle);
    }
  }

  #lease(loaded: Loaded): Lease {
    loaded.users++;
    this.#loaded.delete(loaded.id);
    this.#loaded.set(loaded.id, loaded); // used last
    let isHeld = true;
    return {
      handle: loaded.handle,
      release: () => {
        if (isHeld) loaded.users--;
        isHeld = false;
      },
    };
  }

  #place(adapter: LoraAdapter): number | undefined {
    for (;;) {
      const handle = this.#decoder.loadAdapter(adapter);
      if (handle !== undefined) return handle;
      const idle = [...this.#loaded.values()].find(({ users }) => users === 0);
      if (!idle) return undefined;
      this.#loaded.delete(idle.id);
      this.#decoder.freeAdapter(idle.handle);
    }
  }
}
