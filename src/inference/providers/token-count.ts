import { z } from "zod";

/**
 * A count of tokens as a provider reports it. More than this nobody reads or writes in one run: it is no count, and
 * the sum over a call's runs (16 choices, or 21 batches of texts) must stay within what a gate takes at settlement.
 */
export const TokenCount = z.int().nonnegative().max(32_000_000);

/** What a provider said, for the log: bounded, whatever it is. */
export const reportedUsage = (usage: unknown): string => (JSON.stringify(usage) ?? "").slice(0, 500);
