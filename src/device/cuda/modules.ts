import { existsSync, readFileSync } from "node:fs";
import { UserError } from "../../base/errors.ts";
import type { CudaEntry } from "../device.ts";
import type { CudaDriver } from "./driver.ts";

const folder = new URL("../../../cubin/", import.meta.url);

/** The module that every GPU can load; a package without it was built where nvcc is not. */
const portable = "mla-decode.fatbin";

/** CUfunction_attribute: most dynamic shared memory, and more bytes of it than any GPU gives unasked. */
const MOST_SHARED = 8;
const DEFAULT_SHARED = 48 * 1024;

/** Throws UserError when the CUDA kernels were not built. */
export function checkKernelsBuilt(): void {
  if (existsSync(new URL(portable, folder))) return;
  throw new UserError(
    `The CUDA kernels (cubin/${portable}) are not built; run \`npm run build\` where nvcc is on the PATH.`,
  );
}

/** Modules and functions of one context, each loaded once, when first wanted. */
export class CudaModules {
  readonly #modules = new Map<string, bigint>();
  readonly #functions = new Map<string, { readonly handle: bigint; readonly sharedBytes: number }>();

  constructor(readonly driver: CudaDriver) {}

  /** CUfunction of `entry`, allowed the shared memory that it wants. Throws UserError when the file is missing. */
  function(entry: CudaEntry): bigint {
    const key = `${entry.module} ${entry.function}`;
    const { sharedBytes = 0 } = entry;
    const known = this.#functions.get(key);
    const found =
      known?.handle ?? this.driver.result("cuModuleGetFunction", this.#module(entry.module), entry.function);
    const allowed = known?.sharedBytes ?? DEFAULT_SHARED;
    // Only ever raised: a launch that was recorded before may want more than this one.
    if (sharedBytes > allowed) this.driver.call("cuFuncSetAttribute", found, MOST_SHARED, sharedBytes);
    this.#functions.set(key, { handle: found, sharedBytes: Math.max(allowed, sharedBytes) });
    return found;
  }

  #module(name: string): bigint {
    const known = this.#modules.get(name);
    if (known !== undefined) return known;
    const url = new URL(name, folder);
    if (!existsSync(url)) {
      throw new UserError(
        `The CUDA kernels (cubin/${name}) are not built; run \`npm run build\` where nvcc is.`,
      );
    }
    const loaded = this.driver.result("cuModuleLoadData", readFileSync(url));
    this.#modules.set(name, loaded);
    return loaded;
  }

  /** Unloads every module. */
  unload(): void {
    for (const module of this.#modules.values()) this.driver.call("cuModuleUnload", module);
    this.#modules.clear();
    this.#functions.clear();
  }
}
