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

/**
 * The GPU at `index`. Throws RangeError for a bad index, UserError where there is none or it is older than Ampere,
 * whose bf16 instructions the kernels need.
 */
export function chooseGpu(gpus: readonly Gpu[], index: number): Gpu {
  if (gpus.length === 0) throw new UserError("The NVIDIA driver sees no GPU.");
  const gpu = gpus[index];
  if (gpu === undefined) {
    throw new RangeError(`gpu must be an integer from 0 to ${gpus.length - 1}, got ${index}`);
  }
  if (gpu.capability < 80) {
    const capability = `${Math.floor(gpu.capability / 10)}.${gpu.capability % 10}`;
    throw new UserError(
      `${gpu.name} has compute capability ${capability}; the CUDA kernels need 8.0 (Ampere) or newer.`,
    );
  }
  return gpu;
}
