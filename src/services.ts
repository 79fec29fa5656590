import { createHash } from "node:crypto";
import type { BackgroundRunsRpc } from "../durable-objects/background-runs.messages";
import type { IdempotencyPorts } from "../durable-objects/idempotency-store";
import type { IdempotencyStoreRpc } from "../durable-objects/idempotency-store.messages";
import type { ModelDispatcherRpc } from "../durable-objects/model-dispatcher.messages";
import type { GatePorts, ObjectHome, PayloadSealing } from "../durable-objects/ports";
import { earliest, sweepArtifacts } from "./artifacts/sweep";
import { bucketOf, type Config, configFrom } from "./config";
import { LeaseBook } from "./core/lease-book";
import { type ObjectAddress, objectName } from "./core/object-name";
import type { PriceBook } from "./core/prices";
import { copySink } from "./data/copies";
import { ledger } from "./data/ledger";
import { listSegment } from "./data/segments";
import { purgeDeleted } from "./data/table-stores";
import { sweepFiles } from "./files/sweep";
import type { Model } from "./inference/catalogue";
import { providerFor } from "./inference/providers";
import { tokenizers } from "./inference/tokenizers";
import type { PipelinePorts } from "./pipeline/model-call";
import { type FileStore, fileStore } from "./storage/files";
import { dataKeys } from "./storage/sealing";
import { segmentStore } from "./storage/segments";
import { purgeTenant } from "./stores";
import { Authenticator } from "./tenancy/authenticate";
import type { BackgroundRunsOf } from "./tenancy/background";
import { registerBootstrapKey } from "./tenancy/bootstrap";
import { assertMinted, type Region, type TenantContext } from "./tenancy/context";
import { EndUserTokens } from "./tenancy/end-user-tokens";
import { type GateAt, objectsOf, sharedObjectsOf } from "./tenancy/gates";
import type { IdempotencyStoreOf } from "./tenancy/idempotency";
import { newId } from "./tenancy/ids";
import { enterAsJob, enterPlatformAsJob } from "./tenancy/jobs";
import { payloadSealing } from "./tenancy/payload-sealing";
import type { TenancyPorts } from "./tenancy/ports";

/** Everything a handler can reach; nothing of it is a binding, and every tenant-bound part asks for a context. */
export interface Services extends TenancyPorts {
  readonly pipeline: PipelinePorts;
  readonly prices: PriceBook;
  readonly files: FileStore;
  /** What was answered to a tenant's requests with an idempotency key. */
  readonly idempotency: IdempotencyStoreOf;
  /** A tenant's work that goes on after its callers have left. */
  readonly background: BackgroundRunsOf;
  /** Of what a tenant's objects keep of its requests. */
  readonly sealing: (tenant: ObjectAddress) => PayloadSealing;
  /** Settles when the databases answer. */
  readonly ready: () => Promise<void>;
}

const built = new WeakMap<object, Services>(); // once per isolate

/** Wires the services to the bindings of `env`. */
export function servicesOf(env: object): Services {
  const known = built.get(env);
  if (known) return known;
  const config = configFrom(env);
  const gateAt: GateAt = objectsOf(config.TENANT_GATE, config.JURISDICTIONS);
  const { databases, directory } = config;
  const tokens = new EndUserTokens(config.TOKEN_SECRET);
  const bootstrap = (keyHash: string) => registerBootstrapKey(gateAt, config.BOOTSTRAP_ADMIN_KEY_HASH, keyHash);
  const authenticator = new Authenticator({ directory, gateAt, tokens, bootstrap, bindingMs: config.BINDING_MS });
  const gate = (context: TenantContext) => {
    assertMinted(context);
    return gateAt(context);
  };
  const idempotencyAt = objectsOf<IdempotencyStoreRpc>(config.IDEMPOTENCY_STORE, config.JURISDICTIONS);
  const backgroundAt = objectsOf<BackgroundRunsRpc>(config.BACKGROUND_RUNS, config.JURISDICTIONS);
  const files = filesOf(config);
  const services: Services = {
    files,
    sealing: payloadSealing(dataKeys(config.WRAPPING_KEYS), gateAt),
    background(context) {
      assertMinted(context);
      return backgroundAt(context);
    },
    idempotency(context) {
      assertMinted(context);
      return idempotencyAt(context);
    },
    authenticator,
    tokens,
    gate,
    data: (context) => databases.of(context),
    regions: config.REGIONS,
    prices: config.prices,
    homes: {
      offered: databases.offered,
      async prepare(context, isolation) {
        if (isolation === "bridge") await databases.schemaOf(context)?.create();
      },
    },
    pipeline: {
      catalogue: config.catalogue,
      gate,
      providerOf: (model, address) => providerFor(model, providerPorts(config), address),
      tokenizers,
      requestDeadlineMs: config.REQUEST_DEADLINE_MS,
      dispatcher: dispatchersOf(config),
      leases: new LeaseBook(config.LEASE_MAX - 1),
      renewBinding: (caller, askedAtMs, policyVersion) => authenticator.renew(caller, askedAtMs, policyVersion),
    },
    ready: async () => {
      await directory.locateTenant("nobody");
      await databases.of(enterPlatformAsJob("health")).answers();
    },
  };
  built.set(env, services);
  return services;
}

/** One object for each scarce model and region. */
export function dispatchersOf(config: Pick<Config, "MODEL_DISPATCHER" | "JURISDICTIONS">) {
  const at = sharedObjectsOf<ModelDispatcherRpc>(config.MODEL_DISPATCHER, config.JURISDICTIONS);
  return (region: Region, model: Pick<Model, "name">) => at(region, model.name);
}

const filesOf = (config: Config): FileStore =>
  fileStore({
    bucket: (tenant) => bucketOf(config, tenant.region as Region),
    dataKeys: dataKeys(config.WRAPPING_KEYS),
  });

const providerPorts = (config: Config) => ({
  ai: config.AI,
  upstream: {
    baseUrl: config.UPSTREAM_URL,
    apiKey: config.UPSTREAM_KEY ?? null,
    timeoutMs: config.UPSTREAM_TIMEOUT_MS,
  },
});

/** Replies to requests with an idempotency key that are kept of one tenant, in bytes. */
const MAX_KEPT_BYTES = 1024 * 1024 * 1024;

/** What an IdempotencyStore is given of the world. */
export function idempotencyPorts(env: object): IdempotencyPorts {
  const config = configFrom(env);
  const gateAt: GateAt = objectsOf(config.TENANT_GATE, config.JURISDICTIONS);
  return {
    dataKeys: dataKeys(config.WRAPPING_KEYS),
    dataKeyOf: ({ tenantId, region }) => gateAt({ tenantId, region: region as Region }).dataKey(),
    maxBytes: MAX_KEPT_BYTES,
  };
}

/** What a TenantGate is given of the world. */
export function gatePorts(env: object): GatePorts {
  const config = configFrom(env);
  const { databases, directory } = config;
  const context = (home: ObjectHome) => enterAsJob({ ...home, region: home.region as Region }, "gate");
  const data = (home: ObjectHome) => databases.of(context(home));
  const platformData = () => databases.of(enterPlatformAsJob("gate"));
  return {
    copies: copySink({ directory, data, platformData }),
    ledger: ledger({ data, platformData }),
    segments: segmentStore({
      bucket: (tenant) => bucketOf(config, tenant.region as Region),
      manifest: (tenant, segment) => listSegment(data(tenant), objectName(tenant), segment, Date.now()),
    }),
    dataKeys: dataKeys(config.WRAPPING_KEYS),
    purge: {
      async deleted(home, deletedUntilMs, keyHashes) {
        await purgeDeleted(data(home), deletedUntilMs);
        await directory.removeKeys(keyHashes);
      },
      tenant: (home) => purgeTenant(env, context(home)),
    },
    async sweep(home, nowMs, retentionMs) {
      const tenant = context(home);
      const ports = { data: (owner: TenantContext) => databases.of(owner), files: filesOf(config) };
      return earliest(
        await sweepFiles(ports, tenant, nowMs, retentionMs),
        await sweepArtifacts(ports.data(tenant), nowMs, retentionMs),
      );
    },
    prices: config.prices,
    maxDraws: config.LEASE_MAX - 1,
    newAuditId: () => newId("auditEvent"),
    sha256: (text) => createHash("sha256").update(text).digest("hex"),
  };
}
