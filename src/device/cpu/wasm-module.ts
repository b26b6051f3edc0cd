import { UserError } from "../../base/errors.ts";

/** Builds of the kernels: relaxed SIMD has a fused multiply-add, plain SIMD runs everywhere. */
export type WasmVariant = "relaxed" | "simd";

/** A compiled build of all kernels. */
export interface WasmModule {
  readonly variant: WasmVariant;
  readonly module: WebAssembly.Module;
}

const files: Record<WasmVariant, URL> = {
  relaxed: new URL("../../../wasm/kernels-relaxed.wasm", import.meta.url),
  simd: new URL("../../../wasm/kernels-simd.wasm", import.meta.url),
};

async function readBytes(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  try {
    if (url.protocol === "file:") {
      const { readFile } = await import("node:fs/promises");
      return new Uint8Array(await readFile(url));
    }
    const response = await fetch(url);
    if (!response.ok) throw new Error(`HTTP status ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    const name = url.pathname.split("/").pop();
    throw new UserError(`The CPU kernels (${name}) cannot be read; build them with \`npm run build\`.`, {
      cause,
    });
  }
}

/**
 * Runs `compile` with the flags Node 20 needs: relaxed SIMD is behind one there, and the baseline compiler is left out
 * so that the first token already runs optimised code.
 */
async function withCompilerFlags<T>(compile: () => Promise<T>): Promise<T> {
  if (typeof process === "undefined" || !process.versions?.node) return compile();
  const v8 = await import("node:v8");
  v8.setFlagsFromString("--no-liftoff");
  const major = Number(process.versions.node.split(".")[0]);
  if (major < 21) v8.setFlagsFromString("--experimental-wasm-relaxed-simd");
  try {
    return await compile();
  } finally {
    v8.setFlagsFromString("--liftoff");
  }
}

const compiled = new Map<WasmVariant, Promise<WasmModule | null>>();

async function compile(variant: WasmVariant): Promise<WasmModule | null> {
  const bytes = await readBytes(files[variant]);
  return withCompilerFlags(async () => {
    if (!WebAssembly.validate(bytes)) return null;
    return { variant, module: await WebAssembly.compile(bytes) };
  });
}

/**
 * The kernels compiled for this runtime: `variant` if given, else relaxed SIMD where the runtime has it.
 * Throws UserError when the runtime cannot run the wanted variant.
 */
export async function loadWasmModule(variant?: WasmVariant): Promise<WasmModule> {
  for (const candidate of variant === undefined ? (["relaxed", "simd"] as const) : [variant]) {
    let pending = compiled.get(candidate);
    if (pending === undefined) {
      pending = compile(candidate);
      pending.catch(() => compiled.delete(candidate));
      compiled.set(candidate, pending);
    }
    const module = await pending;
    if (module !== null) return module;
  }
  const wanted = variant === "relaxed" ? "relaxed SIMD" : "SIMD and threads";
  throw new UserError(`This JavaScript runtime has no WebAssembly ${wanted}; use Node 20.19 or newer.`);
}
