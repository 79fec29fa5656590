import { request as ask, createServer } from "node:http";
import { createServer as createProbe } from "node:net";

/** Both loopback addresses that `localhost` may mean; nobody outside of this machine reaches them. */
const LOOPBACK = ["127.0.0.1", "::1"];

/**
 * What listens on the tenants' port. The development server behind it, on a port of its own, answers paths that no
 * tenant may reach (`/cdn-cgi/…`: data, handlers, buckets), and believes headers that tell it of another address. So
 * only the platform's own paths pass, as they were understood here, and none of those headers.
 */
export class LocalProxy {
  constructor(servers) {
    this.servers = servers;
  }

  /** @throws Error when the port is taken */
  static async open(port, innerPort) {
    const servers = [];
    for (const host of LOOPBACK) {
      const server = createServer((request, reply) => pass(request, reply, innerPort));
      server.requestTimeout = 0; // an upload takes its time; the platform has limits of its own
      const problem = await listening(server, port, host);
      if (problem === undefined) servers.push(server);
      else if (!isMissing(problem)) throw new Error(`cannot listen on port ${port} (${problem.code})`);
    }
    return new LocalProxy(servers);
  }

  close() {
    for (const server of this.servers) {
      server.close();
      server.closeAllConnections();
    }
  }
}

/** @returns the path that a request is for, without its dots; undefined where it is none of the platform's */
export function ownPath(target) {
  if (!target?.startsWith("/") || !URL.canParse(`http://localhost${target}`)) return undefined;
  const { pathname, search } = new URL(`http://localhost${target}`);
  return pathname === "/health" || pathname === "/v1" || pathname.startsWith("/v1/") ? pathname + search : undefined;
}

function pass(request, reply, port) {
  const path = ownPath(request.url);
  if (path === undefined) {
    request.resume();
    return notFound(request, reply);
  }
  const headers = pairs(request.rawHeaders).filter(
    ([name]) => !/^(host|connection|keep-alive|upgrade|expect|te|trailer|mf-.*|x-forwarded-.*)$/i.test(name),
  );
  const inner = ask({ host: LOOPBACK[0], port, method: request.method, path, agent: false }, (answer) => {
    reply.writeHead(answer.statusCode, answer.statusMessage, hopless(answer.rawHeaders).flat());
    answer.on("error", () => reply.destroy());
    answer.pipe(reply);
  });
  for (const [name, value] of merged(headers)) inner.setHeader(name, value);
  inner.on("error", () => (reply.headersSent ? reply.destroy() : unavailable(reply)));
  reply.on("close", () => inner.destroy()); // a caller that leaves is told to the platform
  request.on("error", () => inner.destroy());
  request.pipe(inner);
}

const pairs = (raw) => raw.flatMap((name, at) => (at % 2 === 0 ? [[name, raw[at + 1]]] : []));
const hopless = (raw) => pairs(raw).filter(([name]) => !/^(connection|keep-alive|transfer-encoding)$/i.test(name));

/** A header that was sent twice stays so: two credentials are no credential. */
function merged(headers) {
  const byName = new Map();
  for (const [name, value] of headers)
    byName.set(name.toLowerCase(), [...(byName.get(name.toLowerCase()) ?? []), value]);
  return [...byName].map(([name, values]) => [name, values.length === 1 ? values[0] : values]);
}

function answer(reply, status, error) {
  reply.writeHead(status, { "content-type": "application/json", "cache-control": "private, no-store" });
  reply.end(JSON.stringify({ error: { param: null, ...error } }));
}

const notFound = ({ method, url }, reply) =>
  answer(reply, 404, {
    message: `Unknown path ${method} ${String(url).slice(0, 200)}.`,
    type: "invalid_request_error",
    code: "not_found",
  });
const unavailable = (reply) =>
  answer(reply, 503, { message: "The platform is not running.", type: "server_error", code: "admission_unavailable" });

/** @returns what went wrong, if anything did */
const listening = (server, port, host) =>
  new Promise((settle) => {
    server.once("error", settle);
    server.listen({ port, host }, () => settle(undefined));
  });
/** This machine has no such address. */
const isMissing = ({ code }) => code === "EADDRNOTAVAIL" || code === "EAFNOSUPPORT";

export async function isTaken(port) {
  for (const host of LOOPBACK) {
    const probe = createProbe();
    const problem = await listening(probe, port, host);
    if (problem !== undefined && !isMissing(problem)) return true;
    if (problem === undefined) await new Promise((settle) => probe.close(settle));
  }
  return false;
}

/** A port of this machine's own that nobody listens on. */
export async function freePort() {
  const probe = createProbe();
  await listening(probe, 0, LOOPBACK[0]);
  const { port } = probe.address();
  await new Promise((settle) => probe.close(settle));
  return port;
}
