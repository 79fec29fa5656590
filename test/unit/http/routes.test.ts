import { describe, expect, it } from "vitest";
import { ROUTES } from "../../../src/http/routes";

/** Whose a path is, by where it lies. */
function scopeOf(path: string): string {
  if (path === "/health") return "public";
  if (/^\/v1\/organization\//.test(path)) return "admin";
  if (/^\/v1\/tenantry\/(projects|reconciliations|cost_allocations|models)\b/.test(path)) return "admin";
  if (/^\/v1\/tenantry\/(end_user_tokens|decisions|limits)$/.test(path)) return "account";
  return "data";
}

describe("the route table", () => {
  it.each(ROUTES.map(({ method, path, scope }) => ({ method, path, scope })))(
    "opens $method $path to credentials of its scope alone",
    ({ path, scope }) => {
      expect(scope).toBe(scopeOf(path));
    },
  );

  it("names each method of a path once", () => {
    const names = ROUTES.map(({ method, path }) => `${method} ${path.replace(/:[a-z_]+/g, ":id")}`);
    expect(names.filter((name, place) => names.indexOf(name) !== place)).toEqual([]);
  });
});
