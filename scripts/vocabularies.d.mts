/** Each vocabulary's file, by its name. */
export function vocabularies(): Promise<Readonly<Record<"cl100k" | "llama3-extension" | "o200k", Uint8Array>>>;
