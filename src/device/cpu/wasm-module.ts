import { UserError } from "../../base/errors.ts";
import { readKernels, withCompilerFlags } from "./platform.ts";

/** Builds of the kernels: relaxed SIMD has a fused multiply-add, plain SIMD runs everywhere. */
export type WasmVariant = "relaxed" | "simd";

/** A compiled build of all kernels. */
export interface WasmModule {
  readonly variant: WasmVariant;
  readonly module: WebAssembly.Module;
}

async function readBytes(variant: WasmVariant): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await readKernels(variant);
  } catch (cause) {
    throw new UserError(
      `The CPU kernels (kernels-${variant}.wasm) cannot be read; build them with \`npm run build\`.`,
      { cause },
    );
  }
}

const compiled = new Map<WasmVariant, Promise<WasmModule | null>>();

async function compile(variant: WasmVariant): Promise<WasmModule | null> {
  const bytes = await readBytes(variant);
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
  throw new UserError(
    `This JavaScript runtime has no WebAssembly ${wanted}; use Node 20.19, a current browser, or newer.`,
  );
}
