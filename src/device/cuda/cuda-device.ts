import { UserError } from "../../base/errors.ts";
import type { CudaEntry, Device, DeviceBuffer, KernelSource, Launch, Program } from "../device.ts";
import { CudaBuffer, checkRange } from "./cuda-buffer.ts";
import { CudaProgram } from "./cuda-program.ts";
import { CudaDriver, CudaError, OUT_OF_MEMORY } from "./driver.ts";
import { chooseGpu, type Gpu, listGpus } from "./gpu.ts";
import { type CudaLaunch, LaunchArena } from "./launch-arena.ts";
import { loadDriverLibrary, type NativeLibrary } from "./library.ts";
import { CudaModules, checkKernelsBuilt } from "./modules.ts";

/** CU_STREAM_NON_BLOCKING: no hidden ordering with other users of the context. */
const NON_BLOCKING = 1;

/** How a CUDA device is opened. */
export interface CudaDeviceOptions {
  /** Which GPU, in the driver's order; default 0. */
  readonly gpu?: number;
  /** Fills fresh buffers with NaN bytes (0xff), so that reading what was never written shows. For tests. */
  readonly poison?: boolean;
  /** The driver's library; default: the one of this machine. */
  readonly library?: NativeLibrary;
}

/** The GPUs that CUDA devices can be opened on. Throws UserError that says what is missing where there is none. */
export async function listCudaGpus(library?: NativeLibrary): Promise<Gpu[]> {
  const gpus = listGpus(new CudaDriver(library ?? (await loadDriverLibrary())));
  chooseGpu(gpus, 0);
  checkKernelsBuilt();
  return gpus;
}

/** One NVIDIA GPU through the driver API: one context, one stream, recorded steps as graphs. */
export class CudaDevice implements Device {
  readonly kind = "cuda";
  readonly name: string;
  readonly limits;
  readonly arena: LaunchArena;
  readonly stream: bigint;
  readonly #context: bigint;
  readonly #modules: CudaModules;
  readonly #live = new Set<CudaBuffer>();
  readonly #programs = new Set<CudaProgram>();
  readonly #resident = new Map<string, number>();
  #used = 0;
  #peak = 0;
  #closed = false;

  private constructor(
    readonly driver: CudaDriver,
    readonly gpu: Gpu,
    readonly poison: boolean,
  ) {
    this.#context = driver.result("cuDevicePrimaryCtxRetain", gpu.ordinal);
    driver.call("cuCtxSetCurrent", this.#context);
    this.stream = driver.result("cuStreamCreate", NON_BLOCKING);
    this.arena = new LaunchArena(driver);
    this.#modules = new CudaModules(driver);
    const features = new Set([`sm_${gpu.capability}`]);
    this.limits = {
      memoryBytes: gpu.memoryBytes,
      computeUnits: gpu.multiprocessors,
      features,
      residentClusters: (entry: CudaEntry) => this.#residentClusters(entry),
    };
    this.name = `${gpu.name}, ${gpu.multiprocessors} multiprocessors`;
  }

  /**
   * Opens a GPU. Throws UserError that says what is missing (the driver, koffi, a GPU, the kernels), RangeError for a GPU
   * that is not there.
   */
  static async open(options: CudaDeviceOptions = {}): Promise<CudaDevice> {
    const driver = new CudaDriver(options.library ?? (await loadDriverLibrary()));
    const gpu = chooseGpu(listGpus(driver), options.gpu ?? 0);
    checkKernelsBuilt();
    return new CudaDevice(driver, gpu, options.poison ?? false);
  }

  get memory(): { usedBytes: number; peakBytes: number } {
    return { usedBytes: this.#used, peakBytes: this.#peak };
  }

  enter(): void {
    if (this.#closed) throw new UserError("The CUDA device is closed.");
    this.driver.call("cuCtxSetCurrent", this.#context);
  }

  allocate(bytes: number, label: string): DeviceBuffer {
    return this.#allocate(bytes, label, this.poison ? 0xff : null);
  }

  #allocate(bytes: number, label: string, fill: number | null): CudaBuffer {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new RangeError(`${label}: expected a size in bytes, got ${bytes}`);
    }
    this.enter();
    const address = this.#reserve(Math.max(bytes, 1), label);
    const buffer = new CudaBuffer(this, address, bytes, label, true);
    this.#live.add(buffer);
    this.#used += bytes;
    this.#peak = Math.max(this.#peak, this.#used);
    if (fill !== null) this.driver.call("cuMemsetD8Async", address, fill, Math.max(bytes, 1), this.stream);
    return buffer;
  }

  #reserve(bytes: number, label: string): bigint {
    try {
      return this.driver.result("cuMemAlloc_v2", bytes);
    } catch (cause) {
      if (!(cause instanceof CudaError) || cause.code !== OUT_OF_MEMORY) throw cause;
      const [wanted, used, all] = [bytes, this.#used, this.gpu.memoryBytes].map((n) =>
        (n / 2 ** 20).toFixed(1),
      );
      throw new UserError(
        `${this.gpu.name} has no room for ${label} (${wanted} MiB): ${used} of its ${all} MiB are in use here.`,
        { cause },
      );
    }
  }

  /** Gives a buffer's memory back, once submitted work is done with it; called by the buffer. */
  release(buffer: CudaBuffer): void {
    if (this.#closed || !this.#live.delete(buffer)) return;
    this.enter();
    this.driver.call("cuStreamSynchronize", this.stream);
    this.driver.call("cuMemFree_v2", buffer.address);
    this.#used -= buffer.bytes;
  }

  write(buffer: DeviceBuffer, data: ArrayBufferView, byteOffset = 0): void {
    const target = this.#own(buffer);
    checkRange(buffer, byteOffset, data.byteLength);
    if (data.byteLength === 0) return;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const address = target.address + BigInt(byteOffset);
    this.driver.call("cuMemcpyHtoDAsync_v2", address, bytes, data.byteLength, this.stream);
    // The copy may still read pageable memory: the caller is free to change it only now.
    this.driver.call("cuStreamSynchronize", this.stream);
  }

  async read(buffer: DeviceBuffer, byteOffset: number, bytes: number): Promise<ArrayBuffer> {
    const source = this.#own(buffer);
    checkRange(buffer, byteOffset, bytes);
    await this.idle();
    const copy = new Uint8Array(bytes);
    if (bytes === 0) return copy.buffer;
    this.enter();
    const address = source.address + BigInt(byteOffset);
    this.driver.call("cuMemcpyDtoHAsync_v2", copy, address, bytes, this.stream);
    this.driver.call("cuStreamSynchronize", this.stream);
    return copy.buffer;
  }

  /** Resolves when all submitted work is done, leaving the event loop free; rejects when it failed. */
  async idle(): Promise<void> {
    this.enter();
    while (!this.driver.isDone(this.stream)) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      this.enter();
    }
  }

  record(step: (launch: Launch) => void): Program {
    this.enter();
    const launches: CudaLaunch[] = [];
    const enqueue = (
      source: KernelSource,
      grid: number,
      buffers: readonly DeviceBuffer[],
      scalars: readonly number[] = [],
    ): void => {
      const launch = this.#prepare(source, grid, buffers, scalars);
      if (grid > 0) launches.push(launch);
    };
    step(Object.assign(enqueue, { target: this }));
    const most = (want: (entry: CudaEntry) => number | undefined) =>
      launches.reduce((bytes, { entry }) => Math.max(bytes, want(entry) ?? 0), 0);
    const scratch = this.#allocate(
      most((entry) => entry.scratchBytes),
      "scratch",
      this.poison ? 0xff : null,
    );
    const counters = this.#allocate(4 * most((entry) => entry.counters), "counters", 0);
    const shared = { scratch: scratch.address, counters: counters.address };
    const program = new CudaProgram(this, launches, shared, () => {
      scratch.free();
      counters.free();
    });
    this.#programs.add(program);
    return program;
  }

  #prepare(
    source: KernelSource,
    grid: number,
    buffers: readonly DeviceBuffer[],
    scalars: readonly number[],
  ): CudaLaunch {
    const entry = source.cuda;
    if (entry === undefined) throw new RangeError(`${source.name}: no CUDA kernel for it`);
    if (!Number.isInteger(grid) || grid < 0) {
      throw new RangeError(`${source.name}: expected a grid size, got ${grid}`);
    }
    if (buffers.length !== source.buffers.length || scalars.length !== source.scalars.length) {
      throw new RangeError(
        `${source.name}: expected ${source.buffers.length} buffers and ${source.scalars.length} scalars, ` +
          `got ${buffers.length} and ${scalars.length}`,
      );
    }
    const addresses = buffers.map((buffer) => this.#own(buffer).address);
    return { source, entry, function: this.#modules.function(entry), grid, addresses, scalars };
  }

  #residentClusters(entry: CudaEntry): number {
    this.enter();
    const key = `${entry.function} ${entry.sharedBytes ?? 0} ${entry.cluster ?? 1}`;
    const known = this.#resident.get(key);
    if (known !== undefined) return known;
    const count = this.arena.residentClusters(entry, this.#modules.function(entry));
    this.#resident.set(key, count);
    return count;
  }

  /** Forgets a program that was freed; called by the program. */
  forget(program: CudaProgram): void {
    this.#programs.delete(program);
  }

  #own(buffer: DeviceBuffer): CudaBuffer {
    this.enter();
    if (buffer instanceof CudaBuffer && buffer.device === this) return buffer;
    throw new TypeError(`${buffer.label}: expected a buffer of this device`);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.idle();
      for (const program of this.#programs) program.free();
      for (const buffer of this.#live) buffer.free();
      this.#modules.unload();
      this.driver.call("cuStreamDestroy_v2", this.stream);
      this.arena.release();
    } finally {
      this.#closed = true;
      // A context that a kernel has broken takes everything with it here.
      this.driver.call("cuDevicePrimaryCtxRelease_v2", this.gpu.ordinal);
    }
  }
}
