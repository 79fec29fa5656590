import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

export const USAGE = `npm start -- [options]

  --port N             port to listen on (8787)
  --persist-to DIR     folder for databases, objects and the local keys (.wrangler/state)
  --database KIND      d1 (default), or postgres: a real one that npm brings, with row level security
  --fresh              forget what an earlier start left in that folder
  --upstream URL       use an OpenAI-compatible server (http://localhost:11434/v1) instead of the embedded model
  --upstream-key-file FILE
                       reads its API key from there; or set TENANTRY_UPSTREAM_KEY. Arguments show in the list of
                       processes, so a key is none
  --verbose            show the log of every request
  --help               show this`;

/**
 * @param env where the key of the upstream may stand
 * @returns the options, `upstreamKey` among them; @throws Error that names what is wrong
 */
export function parseOptions(args, env = {}) {
  const { values } = parseArgs({
    args,
    options: {
      port: { type: "string", default: "8787" },
      "persist-to": { type: "string", default: ".wrangler/state" },
      database: { type: "string", default: "d1" },
      fresh: { type: "boolean", default: false },
      upstream: { type: "string" },
      "upstream-key-file": { type: "string" },
      // Refused by name below: what it is given must not become common.
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
  if (values["upstream-key"] !== undefined) {
    throw new Error(
      "--upstream-key is not taken: everybody on this machine can read it in the list of processes, where it has stood just now. Make that key anew, and use --upstream-key-file or TENANTRY_UPSTREAM_KEY",
    );
  }
  return { ...values, port, upstreamKey: upstreamKey(values["upstream-key-file"], env.TENANTRY_UPSTREAM_KEY) };
}

function upstreamKey(file, fromEnvironment) {
  let key = fromEnvironment || undefined;
  if (file !== undefined) {
    try {
      key = readFileSync(file, "utf8").trim();
    } catch (error) {
      throw new Error(`--upstream-key-file ${file} cannot be read (${error.code})`);
    }
  }
  if (key !== undefined && !/^[\x21-\x7e]{1,4096}$/.test(key)) {
    throw new Error("the key of the upstream is one line of printable characters without spaces");
  }
  return key;
}
