import type { Mutation } from "./mutation";

/** What no other part guards: erasure, databases, the pipeline's steps, prices, configuration and the wire. */
export const mutations: readonly Mutation[] = [
  {
    promise: "an erased object answers like one that never existed",
    file: "src/tenancy/erased-objects.ts",
    find: "const MAX_ATTEMPTS = 3;",
    replace: "const MAX_ATTEMPTS = 1;",
    tests: ["test/worker/erasure.test.ts"],
  },
  {
    promise: "an erased object answers like one that never existed",
    file: "src/tenancy/erased-objects.ts",
    find: "error.message === ERASED",
    replace: "error.message === `${ERASED}!`",
    tests: ["test/e2e/purge.test.ts"],
  },
  {
    promise: "an erased object answers like one that never existed",
    file: "durable-objects/erasure.ts",
    find: "setTimeout(() => ctx.abort(ERASED), 0);\n    await new Promise(() => {});",
    replace: "",
    tests: ["test/worker/erasure.test.ts"],
  },
  {
    promise: "an erased object answers like one that never existed",
    file: "durable-objects/erasure.ts",
    find: "await ctx.storage.deleteAll();",
    replace: "",
    tests: ["test/worker/erasure.test.ts"],
  },
  {
    promise: "before a tenant is erased, what is under way of it is written",
    file: "durable-objects/gate-upkeep.ts",
    find: "const before = this.#running.get(kind) ?? Promise.resolve();",
    replace: "const before = Promise.resolve();",
    tests: ["test/unit/objects/gate-upkeep.test.ts"],
  },
  {
    promise: "after a gate is erased by its alarm, nothing else of it runs",
    file: "durable-objects/gate-upkeep.ts",
    find: "if (this.#isStopped) return;\n      await this.#run",
    replace: "await this.#run",
    tests: ["test/unit/objects/gate-upkeep.test.ts"],
  },
  {
    promise: "after a gate is erased by its alarm, nothing else of it runs",
    file: "durable-objects/gate-upkeep.ts",
    find: "if (this.#isStopped) return; // there are no tables any more\n",
    replace: "",
    tests: ["test/unit/objects/gate-upkeep.test.ts"],
  },
];
