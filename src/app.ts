import { Hono, type MiddlewareHandler } from "hono";
import { ApiError } from "./errors";
import { toResponse } from "./http/errors";
import type { AppEnv as Env } from "./http/handler";
import { HEADER as IDEMPOTENCY_KEY, idempotent } from "./http/idempotency";
import type { Route } from "./http/route";
import type { Services } from "./services";
import { newId } from "./tenancy/ids";

/** Reply headers that a browser's script may read. */
const EXPOSED = [
  "x-request-id",
  "x-audit",
  "x-max-output-tokens",
  "x-should-retry",
  "retry-after",
  "retry-after-ms",
  "idempotent-replayed",
  ...["limit", "remaining", "reset"].flatMap((part) => [`x-ratelimit-${part}-requests`, `x-ratelimit-${part}-tokens`]),
].join(", ");

/** The application from its route table: middleware order and mounts, nothing else. */
export function createApp(routes: readonly Route[], servicesOf: (env: object) => Services): Hono<Env> {
  const app = new Hono<Env>({ strict: true });
  app.use(identify(servicesOf), refuseNul);
  app.options("*", (c) => preflight(c.req.raw));
  for (const route of routes) {
    app.on(route.method, [route.path], onRoute(route), authenticate(route), idempotent, async (c) => route.handler(c));
  }
  for (const [path, methods] of methodsByPath(routes)) {
    app.all(path, (c) => {
      const message = `${c.req.method} is not allowed here; ${methods.join(", ")} ${methods.length > 1 ? "are" : "is"}.`;
      throw new ApiError("method_not_allowed", message, { headers: { allow: methods.join(", ") } });
    });
  }
  app.notFound((c) => {
    throw unknownPath(c.req.method, c.req.path);
  });
  app.onError((error, c) => withCommonHeaders(toResponse(error, c.var.requestId), c.var.requestId));
  return app;
}

/** Every request gets an id of ours; one that a caller sends is never used, since records are keyed by it. */
function identify(servicesOf: (env: object) => Services): MiddlewareHandler<Env> {
  return async (c, next) => {
    c.set("requestId", newId("request"));
    c.set("services", servicesOf(c.env as object));
    c.set("ending", { failed: false, formDigest: null });
    await next();
    c.res = withCommonHeaders(c.res, c.var.requestId);
  };
}

/** No id, name or path has a NUL; a database may not even be asked for one. */
const refuseNul: MiddlewareHandler<Env> = async (c, next) => {
  if (/%00|\0/.test(new URL(c.req.url).pathname)) throw unknownPath(c.req.method, c.req.path);
  await next();
};

const unknownPath = (method: string, path: string) =>
  new ApiError("not_found", `Unknown path ${method} ${path.slice(0, 200)}.`);

function withCommonHeaders(response: Response, requestId: string): Response {
  const { headers } = response;
  headers.set("x-request-id", requestId);
  headers.set("cache-control", "private, no-store");
  headers.set("x-content-type-options", "nosniff");
  headers.set("referrer-policy", "no-referrer");
  headers.set("access-control-allow-origin", "*"); // no cookies here: the bearer token is the only right
  headers.set("access-control-expose-headers", EXPOSED);
  return response;
}

/** A preflight carries no token, so it is answered for every origin; the token's own origins count on the call. */
function preflight(request: Request): Response {
  return new Response(null, {
    status: 204,
    headers: {
      "access-control-allow-origin": "*",
      "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
      "access-control-allow-headers":
        request.headers.get("access-control-request-headers") ?? "authorization, content-type",
      "access-control-max-age": "86400",
      vary: "access-control-request-headers",
    },
  });
}

function onRoute(route: Route): MiddlewareHandler<Env> {
  return async (c, next) => {
    c.set("route", route);
    await next();
  };
}

/** Access is closed by default: a route that declares no scope is a mistake of ours, never an open door. */
function authenticate({ scope, alsoScopes = [], path, opening }: Route): MiddlewareHandler<Env> {
  return async (c, next) => {
    if (scope === undefined) throw new TypeError(`route ${path} declares no scope`);
    if (scope !== "public") {
      const { authenticator } = c.var.services;
      // A request that may be a duplicate is admitted only once it is known to be the first.
      const isClaimed = c.req.header(IDEMPOTENCY_KEY) !== undefined;
      const call = isClaimed ? undefined : opening?.(c);
      const { context, policy, opened } = await authenticator.authenticate(c.req.raw, [scope, ...alsoScopes], call);
      c.set("tenant", context);
      c.set("policy", policy);
      c.set("opened", opened);
    }
    await next();
  };
}

function methodsByPath(routes: readonly Route[]): Map<string, string[]> {
  const methods = new Map<string, string[]>();
  for (const { method, path } of routes) methods.set(path, [...(methods.get(path) ?? []), method]);
  return methods;
}
