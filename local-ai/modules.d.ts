declare module "*.bin" {
  const bytes: ArrayBuffer;
  export default bytes;
}
declare module "*.sql" {
  const text: string;
  export default text;
}
