import { type PlatformOptions, startPlatform } from "./isolates.ts";

/** A platform as a process; started by crash.ts and by the benchmarks. */
const options = JSON.parse(process.argv[2] ?? "{}") as PlatformOptions;
const { urls } = await startPlatform(options);
console.log(`urls: ${JSON.stringify(urls)}`);
