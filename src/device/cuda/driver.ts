import { UserError } from "../../base/errors.ts";
import type { NativeFunction, NativeLibrary } from "./library.ts";

/** CUresult of success, and of work that is not finished. */
const SUCCESS = 0;
const NOT_READY = 600;
/** CUresult of memory that is used up. */
export const OUT_OF_MEMORY = 2;

const handle = "uint64_t";
const pointer = "void *";

/** The driver's functions with their C parameters; handles and device addresses are 64-bit integers. */
const functions = {
  cuInit: ["unsigned int"],
  cuDriverGetVersion: [pointer],
  cuGetErrorName: ["int", pointer],
  cuGetErrorString: ["int", pointer],
  cuDeviceGetCount: [pointer],
  cuDeviceGet: [pointer, "int"],
  cuDeviceGetName: [pointer, "int", "int"],
  cuDeviceTotalMem_v2: [pointer, "int"],
  cuDeviceGetAttribute: [pointer, "int", "int"],
  cuDevicePrimaryCtxRetain: [pointer, "int"],
  cuDevicePrimaryCtxRelease_v2: ["int"],
  cuDevicePrimaryCtxReset_v2: ["int"],
  cuCtxSetCurrent: [handle],
  cuMemGetInfo_v2: [pointer, pointer],
  cuMemHostAlloc: [pointer, "size_t", "unsigned int"],
  cuMemFreeHost: [handle],
  cuMemAlloc_v2: [pointer, "size_t"],
  cuMemFree_v2: [handle],
  cuMemcpyHtoDAsync_v2: [handle, handle, "size_t", handle],
  cuMemcpyDtoHAsync_v2: [pointer, handle, "size_t", handle],
  cuMemsetD8Async: [handle, "unsigned char", "size_t", handle],
  cuStreamCreate: [pointer, "unsigned int"],
  cuStreamQuery: [handle],
  cuStreamSynchronize: [handle],
  cuStreamDestroy_v2: [handle],
  cuStreamBeginCapture_v2: [handle, "int"],
  cuStreamEndCapture: [handle, pointer],
  cuEventCreate: [pointer, "unsigned int"],
  cuEventRecord: [handle, handle],
  cuEventQuery: [handle],
  cuEventSynchronize: [handle],
  cuEventElapsedTime: [pointer, handle, handle],
  cuEventDestroy_v2: [handle],
  cuModuleLoadData: [pointer, pointer],
  cuModuleGetFunction: [pointer, handle, "str"],
  cuModuleUnload: [handle],
  cuFuncSetAttribute: [handle, "int", "int"],
  cuOccupancyMaxActiveClusters: [pointer, handle, handle],
  cuLaunchKernelEx: [handle, handle, handle, pointer],
  cuGraphInstantiateWithFlags: [pointer, handle, "unsigned long long"],
  cuGraphLaunch: [handle, handle],
  cuGraphExecDestroy: [handle],
  cuGraphDestroy: [handle],
  cuTensorMapEncodeTiled: [
    handle,
    "int",
    "unsigned int",
    handle,
    pointer,
    pointer,
    pointer,
    pointer,
    "int",
    "int",
    "int",
    "int",
  ],
} as const;

/** A function of the driver that this project calls. */
export type DriverFunction = keyof typeof functions;

type NativeValue = Parameters<NativeFunction>[number];

/**
 * CUresults after which a context does nothing any more: an address out of bounds, a misaligned one, an illegal instruction, a
 * trap, a GPU that fell off the bus …
 */
const fatal = new Set([46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999]);

/** A failed call of the driver. */
export class CudaError extends UserError {
  /** Whether the driver does nothing any more in this process, as it puts it; the device can only be closed. */
  readonly isFatal: boolean;

  constructor(
    readonly call: string,
    readonly code: number,
    readonly description: string,
  ) {
    const isFatal = fatal.has(code);
    super(
      isFatal
        ? `The GPU stopped in ${call}: ${description}; what was on it is lost, and this process cannot use it any more: start it again.`
        : `The NVIDIA driver failed in ${call}: ${description}.`,
    );
    this.isFatal = isFatal;
  }

  /** The same failure, naming the kernel that was to be launched. */
  of(kernel: string): CudaError {
    return new CudaError(`${this.call} of ${kernel}`, this.code, this.description);
  }
}

/** The driver's functions, bound once; every failure becomes a {@link CudaError} with the driver's own words. */
export class CudaDriver {
  readonly #bound: Map<string, NativeFunction>;

  /** Binds the functions and initialises the driver. Throws UserError where one is missing or initialising fails. */
  constructor(readonly library: NativeLibrary) {
    this.#bound = new Map(
      Object.entries(functions).map(([name, parameters]) => [name, this.#bind(name, parameters)]),
    );
    this.call("cuInit", 0);
  }

  #bind(name: string, parameters: readonly string[]): NativeFunction {
    try {
      return this.library.bind(name, parameters);
    } catch (cause) {
      throw new UserError(
        `The NVIDIA driver is too old: it has no ${name}; install version 525 (CUDA 12.0) or newer.`,
        { cause },
      );
    }
  }

  #invoke(name: DriverFunction, values: readonly NativeValue[]): number {
    const bound = this.#bound.get(name);
    if (bound === undefined) throw new RangeError(`${name} is not bound`);
    return bound(...values);
  }

  /** Calls `name`; throws CudaError unless it succeeds. */
  call(name: DriverFunction, ...values: NativeValue[]): void {
    const status = this.#invoke(name, values);
    if (status !== SUCCESS) throw new CudaError(name, status, this.#describe(status));
  }

  /** Calls `name` where nothing can be done about a failure. */
  attempt(name: DriverFunction, ...values: NativeValue[]): void {
    this.#invoke(name, values);
  }

  /** Calls `name`, whose first parameter points to a 64-bit result, and gives that result. */
  result(name: DriverFunction, ...values: NativeValue[]): bigint {
    const out = new BigUint64Array(1);
    this.call(name, out, ...values);
    return out[0] ?? 0n;
  }

  /** The same for a 32-bit integer. */
  integer(name: DriverFunction, ...values: NativeValue[]): number {
    const out = new Int32Array(1);
    this.call(name, out, ...values);
    return out[0] ?? 0;
  }

  /** Whether all work of `stream` is done; throws CudaError when it failed. */
  isDone(stream: bigint): boolean {
    return this.#isFinished("cuStreamQuery", stream);
  }

  /** Whether all work before the last record of an event is done; throws CudaError when that failed. */
  isPast(event: bigint): boolean {
    return this.#isFinished("cuEventQuery", event);
  }

  #isFinished(query: "cuStreamQuery" | "cuEventQuery", what: bigint): boolean {
    const status = this.#invoke(query, [what]);
    if (status === NOT_READY) return false;
    if (status !== SUCCESS) throw new CudaError("the work submitted before", status, this.#describe(status));
    return true;
  }

  #describe(status: number): string {
    const words = (["cuGetErrorName", "cuGetErrorString"] as const).map((name) => {
      const text = new BigUint64Array(1);
      const known = this.#invoke(name, [status, text]) === SUCCESS && text[0] !== 0n;
      return known ? this.library.text(text[0] ?? 0n) : `error ${status}`;
    });
    return `${words[0]} (${words[1]})`;
  }
}
