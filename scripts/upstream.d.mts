/** The catalogue of an OpenAI-compatible server. @throws Error that says what to do */
export function upstreamCatalogue(
  url: string,
  key?: string,
): Promise<{ readonly version: string; readonly models: readonly Readonly<Record<string, unknown>>[] }>;
