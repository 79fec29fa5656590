import { parseArgs } from "node:util";

export const USAGE = `npm start -- [options]

  --port N             port to listen on (8787)
  --persist-to DIR     folder for databases, objects and the local keys (.wrangler/state)
  --database KIND      d1 (default), or postgres: a real one that npm brings, with row level security
  --fresh              forget what an earlier start left in that folder
  --upstream URL       use an OpenAI-compatible server (http://localhost:11434/v1) instead of the embedded model
  --upstream-key KEY   its API key
  --verbose            show the log of every request
  --help               show this`;

/** @returns the options; @throws Error that names what is wrong */
export function parseOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      port: { type: "string", default: "8787" },
      "persist-to": { type: "string", default: ".wrangler/state" },
      database: { type: "string", default: "d1" },
      fresh: { type: "boolean", default: false },
      upstream: { type: "string" },
      "upstream-key": { type: "string" },
      verbose: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error(`--port ${values.port} is no port`);
  if (values.upstream !== undefined && !/^https?:\/\//.test(values.upstream)) {
    throw new Error(`--upstream ${values.upstream} is no http(s) address`);
  }
  if (!["d1", "postgres"].includes(values.database)) {
    throw new Error(`--database ${values.database} is neither d1 nor postgres`);
  }
  return { ...values, port };
}
