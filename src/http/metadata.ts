import { z } from "zod";

/** The contract's labels of an object: at most 16, with short keys and values. */
export const Metadata = z
  .record(z.string().min(1).max(64), z.string().max(512))
  .refine((labels) => Object.keys(labels).length <= 16, "at most 16 pairs are accepted");
export type Metadata = Readonly<Record<string, string>>;
