import { UserError } from "../../base/errors.ts";
import type { CudaDriver } from "./driver.ts";

/** One GPU as the driver describes it. */
export interface Gpu {
  /** CUdevice, for the driver. */
  readonly ordinal: number;
  readonly name: string;
  readonly memoryBytes: number;
  readonly multiprocessors: number;
  /** Compute capability: 90 for Hopper. */
  readonly capability: number;
  /** Most bytes of shared memory that one block can have. */
  readonly sharedBytes: number;
}

/** CUdevice_attribute. */
const MULTIPROCESSORS = 16;
const MAJOR = 75;
const MINOR = 76;
const SHARED_OPT_IN = 97;

function describe(driver: CudaDriver, index: number): Gpu {
  const ordinal = driver.integer("cuDeviceGet", index);
  const name = new Uint8Array(256);
  driver.call("cuDeviceGetName", name, name.length, ordinal);
  const attribute = (which: number) => driver.integer("cuDeviceGetAttribute", which, ordinal);
  return {
    ordinal,
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
    memoryBytes: Number(driver.result("cuDeviceTotalMem_v2", ordinal)),
    multiprocessors: attribute(MULTIPROCESSORS),
    capability: attribute(MAJOR) * 10 + attribute(MINOR),
    sharedBytes: attribute(SHARED_OPT_IN),
  };
}

/** All GPUs, in the driver's order (set CUDA_VISIBLE_DEVICES to choose or reorder them). */
export function listGpus(driver: CudaDriver): Gpu[] {
  return Array.from({ length: driver.integer("cuDeviceGetCount") }, (_, index) => describe(driver, index));
}

/** Why the kernels do not run on `gpu`, in a sentence; null where they do. They need the bf16 instructions of Ampere. */
export function problemOf({ name, capability }: Gpu): string | null {
  if (capability >= 80) return null;
  const words = `${Math.floor(capability / 10)}.${capability % 10}`;
  return `${name} has compute capability ${words}; the CUDA kernels need 8.0 (Ampere) or newer.`;
}

/**
 * The GPU at `index`, or the first that the kernels run on. Throws RangeError for a bad index, UserError where there is none or
 * the kernels do not run on it.
 */
export function chooseGpu(gpus: readonly Gpu[], index?: number): Gpu {
  if (gpus.length === 0) throw new UserError("The NVIDIA driver sees no GPU.");
  const usable = gpus.find((one) => problemOf(one) === null);
  const gpu = index === undefined ? (usable ?? gpus[0]) : gpus[index];
  if (gpu === undefined) {
    const names = gpus.map(({ name }, i) => `${i}: ${name}`).join(", ");
    throw new RangeError(`there is no GPU ${index}; the driver sees ${names}`);
  }
  const problem = problemOf(gpu);
  if (problem !== null) throw new UserError(problem);
  return gpu;
}
