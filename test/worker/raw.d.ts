declare module "*?raw" {
  const text: string;
  export default text;
}

/** As the test runner's bundler has it. */
interface ImportMeta {
  glob<T>(
    pattern: string,
    options: { readonly query: "?raw"; readonly import: "default"; readonly eager: true },
  ): Readonly<Record<string, T>>;
}
