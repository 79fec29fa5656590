import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** Type bytes of Postgres' wire protocol, version 3. */
const TERMINATE = "X".charCodeAt(0);
const READY = "Z".charCodeAt(0);

export interface Pooler {
  readonly url: string;
  /** Clients that were served so far, all of them over one connection. */
  readonly served: () => number;
  stop(): Promise<void>;
}

/**
 * A pool of one connection, as Hyperdrive or PgBouncer keep them: a client that leaves gives its connection to the
 * next, with everything that it has set for the session. Clients come one after another.
 */
export async function startPooler(target: string): Promise<Pooler> {
  const { hostname, port } = new URL(target);
  const server = connect(Number(port), hostname);
  let client: Socket | undefined;
  let greeting = Buffer.alloc(0);
  let isGreeted = false;
  let served = 0;
  const sockets: Socket[] = [];
  server.on("data", (bytes) => {
    if (!isGreeted) greeting = Buffer.concat([greeting, bytes]);
    isGreeted ||= endsReady(bytes);
    client?.write(bytes);
  });
  const listener = createServer((socket) => {
    served++;
    sockets.push(socket);
    const isFirst = served === 1;
    let isStarted = isFirst;
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      client = socket; // whoever speaks has the connection
      if (!isStarted) {
        isStarted = true; // its own start-up message: the connection is long there
        socket.write(afterAuthentication(greeting));
        return;
      }
      const rest = withoutTermination(bytes);
      if (rest.length > 0) server.write(rest);
    });
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const url = new URL(target);
  url.hostname = "127.0.0.1";
  url.port = String((listener.address() as { port: number }).port);
  return {
    url: url.href,
    served: () => served,
    async stop() {
      server.destroy();
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, "close");
    },
  };
}

/** `Z`, a length of five, and the state of the transaction: the last message of a start-up. */
const endsReady = (bytes: Buffer) => bytes.length >= 6 && bytes[bytes.length - 6] === READY;

/** `X` and a length of four, at the end of what a client says. */
function withoutTermination(bytes: Buffer): Buffer {
  const at = bytes.length - 5;
  return at >= 0 && bytes[at] === TERMINATE && bytes.readInt32BE(at + 1) === 4 ? bytes.subarray(0, at) : bytes;
}

/** The messages of a start-up from "authentication is over" on; earlier ones ask for a password. */
function afterAuthentication(greeting: Buffer): Buffer {
  for (let at = 0; at < greeting.length; at += 1 + greeting.readInt32BE(at + 1)) {
    if (greeting[at] === "R".charCodeAt(0) && greeting.readInt32BE(at + 5) === 0) return greeting.subarray(at);
  }
  throw new Error("the server has not let the first client in");
}
