import type { Region } from "./context";

/** OpenAI's residency values that this platform maps to a jurisdiction; the others are not configured anywhere. */
const REGION_OF_RESIDENCY: Readonly<Record<string, Region>> = {
  GLOBAL: "global",
  EU_STORAGE_PROCESSING: "eu",
  US_STORAGE_PROCESSING: "us",
};

/** The region for a residency value, or undefined where this deployment does not offer it. */
export function regionOf(residency: string, configured: readonly Region[]): Region | undefined {
  const region = Object.hasOwn(REGION_OF_RESIDENCY, residency) ? REGION_OF_RESIDENCY[residency] : undefined;
  return region && configured.includes(region) ? region : undefined;
}
