/** A module that scripts/build.mjs writes: a WebAssembly file, deflated, in base 64. */
declare module "*.wasm.js" {
  const text: string;
  export default text;
}
