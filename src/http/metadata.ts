import { z } from "zod";
import { map } from "./bounded";
import { MAX_LABELS } from "./bounds";

/** The contract's labels of an object: at most 16, with short keys and values. */
export const Metadata = map(z.string().min(1).max(64), z.string().max(512), { max: MAX_LABELS });
export type Metadata = Readonly<Record<string, string>>;
