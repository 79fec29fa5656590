import { setImmediate } from "node:timers";

/** Everybody else's turn: messages that came in, other requests, other objects. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
