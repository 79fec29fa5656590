import { describe, expect, it, vi } from "vitest";
import { createApp } from "../../../src/app";
import { ApiError } from "../../../src/errors";
import type { Route } from "../../../src/http/route";
import { INFERENCE_STAGES } from "../../../src/pipeline/stages";
import type { Services } from "../../../src/services";

const asked: { readonly scope: string; readonly hasCall: boolean }[] = [];
const authenticator = {
  async authenticate(request: Request, scope: string, call: unknown) {
    asked.push({ scope, hasCall: call !== undefined });
    if (request.headers.get("authorization") !== "Bearer good") throw new ApiError("invalid_api_key", "No.");
    return { context: { tenantId: "proj_1" }, policy: { version: 1 } };
  },
};
const route = (more: object): Route =>
  ({ method: "GET", stages: INFERENCE_STAGES, handler: () => new Response("seen"), ...more }) as unknown as Route;
const APP = createApp(
  [
    route({ path: "/open", scope: "public" }),
    route({ path: "/data", scope: "data", opening: () => async () => undefined }),
    route({ path: "/data", scope: "admin", method: "DELETE" }),
    route({ path: "/forgotten", scope: undefined }),
    route({
      path: "/fails",
      scope: "public",
      handler: () => {
        throw new TypeError("select * from api_key");
      },
    }),
    route({ path: "/who", scope: "data", handler: (c: { var: { tenant: unknown } }) => Response.json(c.var.tenant) }),
  ],
  () => ({ authenticator }) as unknown as Services,
);
const ask = async (path: string, init: RequestInit = {}) => {
  const reply = await APP.request(path, init, {});
  const text = await reply.text();
  return { status: reply.status, headers: reply.headers, text, code: /"code":"(\w+)"/.exec(text)?.[1] };
};
const good = { authorization: "Bearer good" };

describe("the application", () => {
  it("lets nobody in without a credential, and hands the bound tenant to the route", async () => {
    expect(await ask("/data")).toMatchObject({ status: 401, code: "invalid_api_key" });
    expect(await ask("/data", { headers: good })).toMatchObject({ status: 200, text: "seen" });
    expect((await ask("/who", { headers: good })).text).toBe('{"tenantId":"proj_1"}');
    expect(await ask("/open")).toMatchObject({ status: 200, text: "seen" });
  });

  it("asks for the scope of the very route, method by method", async () => {
    asked.length = 0;
    await ask("/data", { headers: good });
    await ask("/data", { method: "DELETE", headers: good });
    expect(asked.map(({ scope }) => scope)).toEqual([["data"], ["admin"]]);
  });

  it("opens no route that declares no scope", async () => {
    const log = vi.spyOn(console, "error").mockImplementation(() => {});
    expect(await ask("/forgotten", { headers: good })).toMatchObject({ status: 500, code: "internal_error" });
    log.mockRestore();
  });

  it("tells nothing of a failure of ours but the request's id", async () => {
    const log = vi.spyOn(console, "error").mockImplementation(() => {});
    const failed = await ask("/fails");
    expect(failed).toMatchObject({ status: 500, code: "internal_error" });
    expect(failed.text).not.toContain("api_key");
    expect(failed.text).toContain(failed.headers.get("x-request-id"));
    log.mockRestore();
  });

  it("answers what no route has with 404, and another method with 405 and the methods there are", async () => {
    expect(await ask("/nowhere")).toMatchObject({ status: 404, code: "not_found" });
    const wrong = await ask("/data", { method: "PUT", headers: good });
    expect(wrong).toMatchObject({ status: 405, code: "method_not_allowed" });
    expect(wrong.headers.get("allow")).toBe("GET, DELETE");
  });

  it.each(["/open", "/data", "/nowhere"])(
    "gives every reply, of %s too, an id of ours and the common headers",
    async (path) => {
      const { headers } = await ask(path, { headers: { "x-request-id": "req_of_the_caller" } });
      expect(headers.get("x-request-id")).toMatch(/^req_[A-Za-z0-9_-]{10,}$/);
      expect(headers.get("x-request-id")).not.toBe("req_of_the_caller");
      expect(headers.get("cache-control")).toBe("private, no-store");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("access-control-allow-origin")).toBe("*");
      expect(headers.get("access-control-allow-credentials")).toBeNull();
      for (const name of ["x-request-id", "x-audit", "retry-after", "x-ratelimit-remaining-tokens"]) {
        expect(headers.get("access-control-expose-headers")?.split(", ")).toContain(name);
      }
    },
  );

  it("answers a browser's preflight without a credential", async () => {
    const headers = { origin: "https://a.example", "access-control-request-headers": "authorization,x-own" };
    const reply = await ask("/data", { method: "OPTIONS", headers });
    expect(reply.status).toBe(204);
    expect(reply.headers.get("access-control-allow-headers")).toBe("authorization,x-own");
    expect(reply.headers.get("access-control-allow-methods")).toContain("POST");
  });

  it("brings a call along with its credential, but for one that may be a duplicate", async () => {
    asked.length = 0;
    await ask("/data", { headers: good });
    await ask("/data", { headers: { ...good, "idempotency-key": "k" } });
    expect(asked.map(({ hasCall }) => hasCall)).toEqual([true, false]);
  });
});
