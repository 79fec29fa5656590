import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { PlatformOptions } from "./isolates";

/** A platform in a process group of its own, so that it can be killed as a machine dies: all at once. */
export interface Killable {
  readonly urls: readonly string[];
  readonly url: string;
  readonly pid: number;
  /** SIGKILL to the whole group; settles when nobody listens any more. */
  kill(): Promise<void>;
}

/** Starts a platform detached. `persistTo` and `adminKey` let the next start find what this one left. */
export async function startKillable(
  options: PlatformOptions & { readonly persistTo: string; readonly adminKey: string },
): Promise<Killable> {
  const script = join(import.meta.dirname, "platform-process.ts");
  const args = ["--disable-warning=ExperimentalWarning", script, JSON.stringify(options)];
  const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", "pipe", "inherit"] });
  const urls = await readUrls(child);
  const pid = child.pid ?? 0;
  return { urls, url: urls[0] ?? "", pid, kill: () => killGroup(child, urls) };
}

async function readUrls(child: ChildProcess): Promise<string[]> {
  if (!child.stdout) throw new TypeError("a child without stdout");
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith("urls: ")) return JSON.parse(line.slice("urls: ".length)) as string[];
  }
  throw new Error("the platform ended before it was ready");
}

/** Killing the parent alone would leave workerd serving, so the group dies, and the dead ports are the proof. */
async function killGroup(child: ChildProcess, urls: readonly string[]): Promise<void> {
  const exited = child.exitCode === null ? once(child, "exit") : undefined;
  process.kill(-(child.pid ?? 0), "SIGKILL");
  await exited;
  for (const url of urls) while (await listens(Number(new URL(url).port))) await new Promise(setImmediate);
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
