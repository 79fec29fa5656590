import type { Handler } from "./handler";

/** Ready when the databases answer; says nothing else to anybody. */
export const getHealth: Handler = async (c) => {
  await c.var.services.ready();
  return c.json({ status: "ok" });
};
