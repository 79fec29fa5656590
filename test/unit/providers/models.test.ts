import { describe, expect, it } from "vitest";
import { unstable_readConfig } from "wrangler";
import { ModelCatalogue } from "../../../src/inference/catalogue";
import production from "../../../src/inference/models.json";

const local = unstable_readConfig({ config: "wrangler.toml" }, { hideWarnings: true }).vars.MODEL_CATALOGUE;

describe.each([
  ["production", production],
  ["local", local],
])("the %s catalogue", (_, document) => {
  const catalogue = ModelCatalogue.parse(document);

  it("never shows a provider's id as a public name", () => {
    const ids = new Set(catalogue.models.map((model) => model.providerModel));
    const names = catalogue.models.flatMap((model) => [model.name, ...model.aliases]);
    expect(names.filter((name) => ids.has(name) || name.startsWith("@"))).toEqual([]);
  });

  it("answers the names that clients try first", () => {
    expect(catalogue.find("gpt-4o-mini")?.task).toBe("chat");
    expect(catalogue.find("text-embedding-3-small")?.task).toBe("embedding");
  });

  it("leaves room for a prompt beside the default output", () => {
    for (const model of catalogue.models) {
      if (model.task === "chat") expect(model.defaultMaxOutputTokens).toBeLessThanOrEqual(model.contextTokens / 2);
    }
  });
});

describe("the production catalogue", () => {
  const catalogue = ModelCatalogue.parse(production);

  it("promises no region, because Workers AI promises none", () => {
    for (const model of catalogue.models) expect([model.provider, model.regions]).toEqual(["workers-ai", ["global"]]);
  });

  it("has a base for LoRA adapters, a model that sees and a model with tools", () => {
    for (const capability of ["lora", "vision", "tools"] as const) {
      expect(catalogue.models.some((model) => model.capabilities.includes(capability))).toBe(true);
    }
  });

  it("stands the well-known names in for models with tools and JSON", () => {
    for (const name of ["gpt-4o", "gpt-4o-mini"]) {
      expect(catalogue.find(name)?.capabilities).toEqual(expect.arrayContaining(["tools", "json_schema"]));
    }
  });
});
