// biome-ignore-all lint/suspicious/noTemplateCurlyInString: pieces of code stand here, not templates
import type { Mutation } from "./mutation";

const DOOR = "src/tenancy/authenticate.ts";
const TOKENS = "src/tenancy/end-user-tokens.ts";
const STORE = "durable-objects/idempotency-store.ts";
const KEPT = "src/http/idempotency.ts";
const doorTest = ["test/unit/tenancy/authenticate.test.ts"];
const tokenTest = ["test/unit/tenancy/end-user-tokens.test.ts"];
const storeTest = ["test/worker/idempotency-store.test.ts"];
const keptTest = ["test/e2e/secrets.test.ts"];
const startTest = ["test/e2e/start.test.ts"];
const firstKeyTest = ["test/e2e/first-key.test.ts"];
const cursorTest = ["test/e2e/cursors.test.ts"];
const affinityTest = ["test/unit/pipeline/affinity.test.ts"];

/** Who may call, with what, and for how long; and that what is secret is shown once and lies nowhere in plain text. */
export const mutations: readonly Mutation[] = [
  // A key
  {
    promise: "a revoked key is refused everywhere within a second: a binding is trusted no longer than it says",
    file: DOOR,
    find: "nowMs - known.askedAtMs < this.options.bindingMs",
    replace: "nowMs - known.askedAtMs < this.options.bindingMs * 3",
    tests: doorTest,
  },
  {
    promise: "the answer's own travel time is part of how long a binding is trusted",
    file: DOOR,
    find: "this.#bindings.set(name, { askedAtMs, reply: bound });",
    replace: "this.#bindings.set(name, { askedAtMs: Date.now(), reply: bound });",
    tests: doorTest,
  },
  {
    promise: "what the gate refused is not trusted from before",
    file: DOOR,
    find: "if (known && policy?.version === known.reply.policyVersion && ",
    replace: "if (known && policy && ",
    tests: doorTest,
  },
  {
    promise: "a call renews a binding only under the policy that is in force",
    file: DOOR,
    find: " || policy.version !== policyVersion) return;",
    replace: ") return;",
    tests: doorTest,
  },
  {
    promise: "a binding is never renewed to an earlier time",
    file: DOOR,
    find: "if (names === undefined || !known || known.askedAtMs >= askedAtMs) return;",
    replace: "if (names === undefined || !known) return;",
    tests: doorTest,
  },
  {
    promise: "a renewed binding counts from when the gate was asked",
    file: DOOR,
    find: "this.#bindings.set(names, { ...known, askedAtMs });",
    replace: "this.#bindings.set(names, { ...known, askedAtMs: Date.now() });",
    tests: doorTest,
  },
  {
    promise: "an end user's call does not renew the binding of a key",
    file: DOOR,
    find: 'context.actor.type !== "api_key" ||',
    replace: 'context.actor.type === "admin_key" ||',
    tests: doorTest,
  },
  {
    promise: "where a key lives is looked up again after a minute",
    file: DOOR,
    find: "if (known && Date.now() - known.atMs < LOCATION_MS) return known.location;",
    replace: "if (known) return known.location;",
    tests: doorTest,
  },
  {
    promise: "a credential in two places is no credential",
    file: DOOR,
    find: 'const several = authorization.includes(",") || ',
    replace: "const several = ",
    tests: doorTest,
  },
  {
    promise: "two different credentials in one request are refused",
    file: DOOR,
    find: "(apiKeyHeader !== null && apiKeyHeader !== credential)",
    replace: "false",
    tests: doorTest,
  },
  {
    promise: "nothing may stand behind a credential",
    file: DOOR,
    find: "/^Bearer +(\\S+)$/i",
    replace: "/^Bearer +(\\S+)/i",
    tests: doorTest,
  },
  {
    promise: "a mistyped key is refused without asking anybody",
    file: "src/tenancy/keys.ts",
    find: "if (base62(BigInt(crc32(body)), CHECKSUM_DIGITS) !== key.slice(-CHECKSUM_DIGITS)) return undefined;",
    replace: "",
    tests: ["test/unit/keys.test.ts"],
  },
  {
    promise: "a key is known by the whole of itself",
    file: "src/tenancy/keys.ts",
    find: "new TextEncoder().encode(key));",
    replace: "new TextEncoder().encode(key.slice(0, 40)));",
    tests: doorTest,
  },
  {
    promise: "only the operator's own keys enter other tenants",
    file: DOOR,
    find: 'if (operator.tenantId !== PLATFORM_TENANT || operator.actor.type !== "admin_key") {',
    replace: 'if (operator.actor.type !== "admin_key") {',
    tests: doorTest,
  },
  // Scopes
  {
    promise: "a path opens to its scope alone",
    file: DOOR,
    find: "    assertScopes(scopes, needed);",
    replace: "",
    tests: doorTest,
  },
  {
    promise: "every scope that a path needs is needed",
    file: DOOR,
    find: "if (needed.every((scope) => scopes.includes(scope))) return;",
    replace: "if (needed.some((scope) => scopes.includes(scope))) return;",
    tests: doorTest,
  },
  {
    promise: "an end user's token lives no longer than its key's right to mint it",
    file: DOOR,
    find: "if (!bound || !MINTING_SCOPES.every((held) => bound.key.scopes.includes(held))) throw invalidKey();",
    replace: "if (!bound) throw invalidKey();",
    tests: doorTest,
  },
  {
    promise: "a token of a key that lost one of its scopes is refused",
    file: DOOR,
    find: "!MINTING_SCOPES.every(",
    replace: "!MINTING_SCOPES.some(",
    tests: doorTest,
  },
  {
    promise: "a token reads data, so its key must be one that may",
    file: "src/tenancy/context.ts",
    find: 'export const MINTING_SCOPES = ["account", "data"] as const',
    replace: 'export const MINTING_SCOPES = ["account"] as const',
    tests: doorTest,
  },
  {
    promise: "an end user's token opens data alone",
    file: DOOR,
    find: 'assertScopes(["data"], needed);',
    replace: "assertScopes(bound.key.scopes as never, needed);",
    tests: doorTest,
  },
  {
    promise: "minting needs both scopes",
    file: "src/http/routes.ts",
    find: '    alsoScopes: ["data"],\n',
    replace: "",
    tests: ["test/e2e/scopes.test.ts"],
  },
  {
    promise: "the door asks for every scope of the route table",
    file: "src/app.ts",
    find: "[scope, ...alsoScopes]",
    replace: "[scope]",
    tests: ["test/e2e/scopes.test.ts"],
  },
  {
    promise: "decisions are shown to account keys alone",
    file: "src/http/routes.ts",
    find: 'control("account", "GET", "/v1/tenantry/decisions", getDecisions)',
    replace: 'control("data", "GET", "/v1/tenantry/decisions", getDecisions)',
    tests: ["test/e2e/route-table.test.ts"],
  },
  {
    promise: "the gate admits no end user's call of a key that may not mint",
    file: "durable-objects/tenant-gate.ts",
    find: '(endUser ? ["account", "data"] : ["data"])',
    replace: '(endUser ? ["account"] : ["data"])',
    tests: ["test/worker/scopes.test.ts"],
  },
  {
    promise: "the gate admits no call of a key without the scope for data",
    file: "durable-objects/tenant-gate.ts",
    find: '(endUser ? ["account", "data"] : ["data"])',
    replace: "(endUser ? ['account', 'data'] : [])",
    tests: ["test/worker/scopes.test.ts"],
  },
  // Origins and end users
  {
    promise: "a token works from its own origins alone",
    file: DOOR,
    find: "return origin !== null && origins.includes(origin);",
    replace: "return origin === null || origins.includes(origin);",
    tests: doorTest,
  },
  {
    promise: "an origin is compared whole",
    file: DOOR,
    find: "origins.includes(origin);",
    replace: "origins.some((own) => origin.startsWith(own));",
    tests: doorTest,
  },
  {
    promise: "a token from another origin is refused",
    file: DOOR,
    find: "    if (!isOwnOrigin) throw originNotAllowed();\n",
    replace: "",
    tests: doorTest,
  },
  {
    promise: "no call is opened for a token from another origin",
    file: DOOR,
    find: "opening && isOwnOrigin\n",
    replace: "opening\n",
    tests: doorTest,
  },
  {
    promise: "the gate counts an end user's call as that end user's",
    file: DOOR,
    find: "{ subject, requestsPerMinute })",
    replace: "null)",
    tests: doorTest,
  },
  // What a token says
  ...(
    [
      ["a token's algorithm is the platform's, never its own", "        algorithms: [ALGORITHM],\n", ""],
      ["a token expires", 'requiredClaims: ["exp", "iat", "sub"]', 'requiredClaims: ["iat", "sub"]'],
      ["a token lives an hour at most", "        maxTokenAge: MAX_TTL_SECONDS,\n", ""],
      ["clocks differ by seconds", "const CLOCK_TOLERANCE_SECONDS = 5;", "const CLOCK_TOLERANCE_SECONDS = 60;"],
      ["a token is this platform's", "        issuer: ISSUER,\n", ""],
      ["a token is of the type that is minted", '        typ: "JWT",\n', ""],
      ["a token is for data", 'if (payload.aud !== AUDIENCE) throw new TypeError("foreign audience");', ""],
      ["a token names the key that signs", " || protectedHeader.kid !== KEY_VERSION) throw", ") throw"],
      ["a token's header says nothing else", 'header !== "alg,kid,typ" || ', ""],
      [
        "a claim that nothing enforces is refused",
        'if (RESERVED_CLAIMS.some((claim) => claim in payload)) throw new TypeError("reserved claim");',
        "",
      ],
      ["no tenant's key signs for another", " ${tenantId}`).digest()", "`).digest()"],
      ["the secret of the platform signs", 'createHmac("sha256", this.secret)', 'createHmac("sha256", "")'],
      ["only projects have end users", "!/^proj_[A-Za-z0-9_-]{1,64}$/.test(tid)", "!tid"],
      ["a token is bounded", "token.length > MAX_TOKEN_CHARACTERS", "token.length < 0"],
      ["lists in a token are lists of texts", 'value.every((item) => typeof item === "string")', "true"],
      ["a rate in a token is a whole number", " || !Number.isSafeInteger(rpm))", ")"],
      ["a token names its key and its subject", 'typeof key !== "string" || typeof sub', "typeof sub"],
      ["a token lives as long as was asked", "nowSeconds + ttlSeconds)", "nowSeconds + MAX_TTL_SECONDS)"],
    ] as const
  ).map(([promise, find, replace]): Mutation => ({ promise, file: TOKENS, find, replace, tests: tokenTest })),
  // Kept replies
  ...(
    [
      [
        "kept replies are sealed",
        "await this.#ports.dataKeys.seal(this.#address, dataKey, purposeOf(key), packed(reply))",
        "packed(reply)",
      ],
      ["a kept reply opens for its own key alone", "`idempotent reply ${key}`", "`idempotent reply`"],
      ["what earlier versions kept in plain text is forgotten", "this.#sql.exec(FORGET_PLAIN_REPLIES);", ";"],
      [
        "replies are forgotten once by an update, and not at every start",
        'this.#putMeta("schema_version", SCHEMA_VERSION);',
        "",
      ],
      ["the data key is asked for once", 'this.#putMeta("data_key", JSON.stringify(dataKey));', ""],
      ["what cannot be sealed is still done", "return unreadable(", "throw unreadable("],
      ["kept replies are bounded", "this.#bytes > this.#ports.maxBytes", "false"],
      ["kept replies are counted", "this.#bytes += sealed?.byteLength ?? 0;", ""],
      ["what is forgotten is counted no more", "this.#bytes -= gone", "gone"],
      ["a store that wakes knows what it holds", "this.#bytes = this.#sql.exec", "this.#bytes = 0 * this.#sql.exec"],
      ["the oldest are forgotten first", "order by expires_at limit 1", "order by expires_at desc limit 1"],
      ["nobody who is at work is forgotten", "where state = 'kept' order by", "where true order by"],
      ["another body is another request", 'if (row.body_digest !== body) return { state: "reused" };', ""],
      ["a claim belongs to one request", "row?.request_id !== requestId || ", ""],
      ["a reply is kept once", ' || row.state !== "running") return;', ") return;"],
      ["only its owner releases a claim", " and request_id = ? and state = 'running'\"", " and ? <> ''\""],
      ["who waits hears of a release", "String(requestId));\n      this.#wake(String(key));", "String(requestId));"],
      ["who waits hears of a reply", "this.#makeRoom();\n      this.#wake(key);", "this.#makeRoom();"],
      ["a claim that nobody ended ends", "row.expires_at <= nowMs) {", "row.expires_at <= 0) {"],
    ] as const
  ).map(([promise, find, replace]): Mutation => ({ promise, file: STORE, find, replace, tests: storeTest })),
  ...(
    [
      ["replies that show a secret are not kept", "showsSecret ? new TextEncoder()", "false ? new TextEncoder()"],
      ["a secret is not shown again", "if (showsSecret) throw refused(", "if (false) throw refused("],
      ["the official clients do not ask again for a secret", "RETRY : NO_RETRY", "RETRY : {}"],
      [
        "a content type does not decide whether bodies are compared",
        "if (c.var.route.readsForm) return",
        'if (c.req.header("content-type")?.startsWith("multipart/")) return',
      ],
      ["bodies are compared", "return digestOf(`${pathname}${search}\\n`, bytes);", "return digestOf(pathname);"],
      [
        "a request belongs to its query",
        "return digestOf(`${pathname}${search}\\n`, bytes);",
        "return digestOf(`${pathname}\\n`, bytes);",
      ],
      ["forms are compared by what is in them", "claim.content !== (await formDigest(c.req.raw))", "false"],
    ] as const
  ).map(([promise, find, replace]): Mutation => ({ promise, file: KEPT, find, replace, tests: keptTest })),
  {
    promise: "an end user's idempotency keys are its own",
    file: KEPT,
    find: 'actor.type === "end_user" ? ["end_user", actor.subject] : ["tenant"]',
    replace: '["tenant"]',
    tests: ["test/e2e/idempotency.test.ts"],
  },
  {
    promise: "idempotency keys of one end user are not those of another",
    file: KEPT,
    find: '["end_user", actor.subject]',
    replace: '["end_user"]',
    tests: ["test/e2e/idempotency.test.ts"],
  },
  {
    promise: "a project that keeps no data keeps no replies",
    file: KEPT,
    find: "keepsNothing(c.var.policy)\n      ? null\n      :",
    replace: "",
    tests: ["test/e2e/idempotency.test.ts"],
  },
  {
    promise: "a route whose reply shows a secret says so",
    file: "src/http/routes.ts",
    find: "postServiceAccountKey, { showsSecret: true })",
    replace: "postServiceAccountKey)",
    tests: keptTest,
  },
  // The operator's first key
  {
    promise: "a deleted first key stays deleted after its purge",
    file: "durable-objects/tenant-store.ts",
    find: 'if (serviceAccountId === null) this.#sql.putMeta(purgedKey(hash), "1");',
    replace: "",
    tests: firstKeyTest,
  },
  {
    promise: "a purged key is not registered again",
    file: "durable-objects/account-changes.ts",
    find: "known || facts.hadKey(command.hash)",
    replace: "known",
    tests: firstKeyTest,
  },
  {
    promise: "a deleted key of another name is not registered as the first one",
    file: "durable-objects/tenant-store.ts",
    find: "this.#keyIdByHash.has(hash) || ",
    replace: "",
    tests: firstKeyTest,
  },
  {
    promise: "only the configured key is registered",
    file: "src/tenancy/bootstrap.ts",
    find: "configuredHash === undefined || configuredHash !== keyHash",
    replace: "configuredHash === undefined",
    tests: ["test/e2e/route-table.test.ts"],
  },
  // Lists and prompts
  {
    promise: "a cursor of another end user's names nothing",
    file: "src/data/page.ts",
    find: "and(eq(table.id, after), visible) as SQL",
    replace: "eq(table.id, after) as SQL",
    tests: cursorTest,
  },
  {
    promise: "a list shows what its caller may see alone",
    file: "src/data/page.ts",
    find: "where: and(visible, where, from)",
    replace: "where: and(where, from)",
    tests: cursorTest,
  },
  {
    promise: "a cursor into files belongs to the end user",
    file: "src/data/files.ts",
    find: "visible: owned(data, scope),",
    replace: "visible: undefined,",
    tests: cursorTest,
  },
  {
    promise: "a page that ends on a row that is deleted meanwhile is gone on from",
    file: "src/data/page.ts",
    find: "await data.withDeleted().first(",
    replace: "await data.first(",
    tests: cursorTest,
  },
  {
    promise: "prompts of two end users share nothing",
    file: "src/pipeline/affinity.ts",
    find: "[tenantId, endUser, model,",
    replace: "[tenantId, model,",
    tests: affinityTest,
  },
  {
    promise: "prompts of two tenants share nothing",
    file: "src/pipeline/affinity.ts",
    find: "[tenantId, endUser, model,",
    replace: "[endUser, model,",
    tests: affinityTest,
  },
  // npm start
  ...(
    [
      ["the development server's own paths are not served", 'pathname.startsWith("/v1/") ?', "true ?", "local-proxy"],
      [
        "a path is passed on as it was understood",
        "request.method, path, agent",
        "request.method, path: request.url, agent",
        "local-proxy",
      ],
      ["headers that stand for a path do not pass", "|mf-.*|x-forwarded-.*)", ")", "local-proxy"],
      ["nobody outside of this machine is served", '["127.0.0.1", "::1"]', '["0.0.0.0"]', "local-proxy"],
      ["the explorer is off behind the door, too", 'X_LOCAL_EXPLORER: "false"', 'X_LOCAL_EXPLORER: "true"', "start"],
      ["keys are no arguments", '"--env-file", secrets.path', '"--var", "K:".concat(options.upstreamKey)', "start"],
      ["secrets are for their owner alone", "chmodSync(path, 0o600);", "chmodSync(path, 0o644);", "secrets-file"],
      ["secrets are handed on as they are", '.replaceAll("$", "\\\\$")', "", "secrets-file"],
      ["secrets go when the platform stops", "  secrets.remove();\n", "", "start"],
      ["a key is not taken as an argument", 'values["upstream-key"] !== undefined', "false", "options"],
    ] as const
  ).map(([promise, find, replace, script]): Mutation => {
    return { promise, file: `scripts/${script}.mjs`, find, replace, tests: startTest };
  }),
];
