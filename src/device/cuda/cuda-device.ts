import { UserError } from "../../base/errors.ts";
import type { CudaEntry, Device, DeviceBuffer, KernelSource, Launch, Program } from "../device.ts";
import { checkLaunch, checkRange, collectLaunches } from "../launch-checks.ts";
import { CUBLAS_WORKSPACE_BYTES } from "./cublas.ts";
import { CudaBuffer } from "./cuda-buffer.ts";
import { CudaLauncher } from "./cuda-launcher.ts";
import { CudaMemory } from "./cuda-memory.ts";
import { CudaProgram } from "./cuda-program.ts";
import { CudaDriver, CudaError } from "./driver.ts";
import { chooseGpu, type Gpu, listGpus } from "./gpu.ts";
import { joinLaunches } from "./join-launches.ts";
import type { SharedMemory } from "./launch-arena.ts";
import { loadDriverLibrary, type NativeLibrary } from "./library.ts";
import { checkKernelsBuilt } from "./modules.ts";
import { SharedBuffer } from "./shared-buffer.ts";
import { StagingRing } from "./staging.ts";
import { isMatmul, type Work } from "./work.ts";

/** CU_STREAM_NON_BLOCKING: no hidden ordering with other users of the context. */
const NON_BLOCKING = 1;

/** How a CUDA device is opened. */
export interface CudaDeviceOptions {
  /** Which GPU, in the driver's order, from 0 on; default: the first that the kernels run on. */
  readonly gpu?: number;
  /** Fills fresh buffers with NaN bytes (0xff), so that reading what was never written shows. For tests. */
  readonly poison?: boolean;
  /** The driver's library; default: the one of this machine. */
  readonly library?: NativeLibrary;
}

/** The GPUs of this machine, in the driver's order. Rejects with a UserError that says what is missing where there is none. */
export async function listCudaGpus(library?: NativeLibrary): Promise<Gpu[]> {
  const gpus = listGpus(new CudaDriver(library ?? (await loadDriverLibrary())));
  if (gpus.length === 0) chooseGpu(gpus);
  checkKernelsBuilt();
  return gpus;
}

/** One NVIDIA GPU through the driver API: one context, one stream, recorded steps as graphs. */
export class CudaDevice implements Device {
  readonly kind = "cuda";
  readonly name: string;
  readonly limits;
  readonly stream: bigint;
  readonly #context: bigint;
  readonly #launcher: CudaLauncher;
  readonly #memory: CudaMemory;
  readonly #staging: StagingRing;
  readonly #scratch: SharedBuffer;
  readonly #counters: SharedBuffer;
  readonly #programs = new Set<CudaProgram>();
  /** Why nothing works any more, once that is so. */
  #lost: CudaError | null = null;
  #closed = false;

  /** `context` is the GPU's primary context, retained for this device. */
  private constructor(
    readonly driver: CudaDriver,
    readonly gpu: Gpu,
    readonly poison: boolean,
    context: bigint,
  ) {
    this.#context = context;
    driver.call("cuCtxSetCurrent", this.#context);
    this.stream = driver.result("cuStreamCreate", NON_BLOCKING);
    this.#launcher = new CudaLauncher(driver, gpu);
    this.#memory = new CudaMemory(driver, gpu, this.stream);
    this.#staging = new StagingRing(driver);
    const allocate = (label: string, fill: number | null) => (bytes: number) =>
      this.#memory.allocate(this, bytes, label, fill);
    this.#scratch = new SharedBuffer(allocate("scratch", poison ? 0xff : null));
    this.#counters = new SharedBuffer(allocate("counters", 0));
    const features = new Set([`sm_${gpu.capability}`]);
    this.limits = {
      memoryBytes: this.#memory.freeAtOpening,
      computeUnits: gpu.multiprocessors,
      features,
      residentClusters: (entry: CudaEntry) => this.#entered().residentClusters(entry),
      cublasProblem: () => this.#entered().cublasProblem(),
    };
    this.name = `${gpu.name}, ${gpu.multiprocessors} multiprocessors`;
  }

  /**
   * Opens a GPU. Throws UserError that says what is missing (the driver, koffi, a GPU, the kernels), RangeError for a GPU
   * that is not there.
   */
  static async open(options: CudaDeviceOptions = {}): Promise<CudaDevice> {
    const driver = new CudaDriver(options.library ?? (await loadDriverLibrary()));
    const gpu = chooseGpu(listGpus(driver), options.gpu);
    checkKernelsBuilt();
    const context = driver.result("cuDevicePrimaryCtxRetain", gpu.ordinal);
    try {
      return new CudaDevice(driver, gpu, options.poison ?? false, context);
    } catch (error) {
      // Takes with it what the device had of it until then.
      driver.attempt("cuDevicePrimaryCtxRelease_v2", gpu.ordinal);
      throw error;
    }
  }

  get memory(): { usedBytes: number; peakBytes: number; reservedBytes: number } {
    this.enter();
    const { usedBytes, peakBytes } = this.#memory;
    return { usedBytes, peakBytes, reservedBytes: this.#memory.reservedBytes() };
  }

  enter(): void {
    if (this.#closed) throw new UserError("The CUDA device is closed.");
    if (this.#lost !== null) throw this.#lost;
    this.driver.call("cuCtxSetCurrent", this.#context);
  }

  allocate(bytes: number, label: string): DeviceBuffer {
    this.enter();
    return this.#memory.allocate(this, bytes, label, this.poison ? 0xff : null);
  }

  /** Gives a buffer's memory back, once submitted work is done with it; called by the buffer. */
  release(buffer: CudaBuffer): void {
    if (this.#closed || this.#lost !== null) return;
    this.enter();
    this.#memory.release(buffer);
  }

  write(buffer: DeviceBuffer, data: ArrayBufferView, byteOffset = 0): void {
    const target = this.#own(buffer);
    checkRange(buffer, byteOffset, data.byteLength);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.#staging.write(target.address + BigInt(byteOffset), bytes, this.stream);
  }

  async read(buffer: DeviceBuffer, byteOffset: number, bytes: number): Promise<ArrayBuffer> {
    const source = this.#own(buffer);
    checkRange(buffer, byteOffset, bytes);
    const address = source.address + BigInt(byteOffset);
    const copy = bytes > 0 ? this.#staging.read(address, bytes, this.stream) : null;
    // Work that is submitted after it is not waited for.
    if (copy !== null) {
      await this.#until(() => this.driver.isPast(copy.event));
      return copy.take();
    }
    await this.idle();
    const result = new Uint8Array(bytes);
    if (bytes === 0) return result.buffer;
    this.enter();
    this.driver.call("cuMemcpyDtoHAsync_v2", result, address, bytes, this.stream);
    this.driver.call("cuStreamSynchronize", this.stream);
    return result.buffer;
  }

  idle(): Promise<void> {
    return this.#until(() => this.driver.isDone(this.stream));
  }

  async #until(isDone: () => boolean): Promise<void> {
    this.enter();
    try {
      while (!isDone()) {
        await new Promise<void>((resolve) => setImmediate(resolve));
        this.enter();
      }
    } catch (error) {
      if (error instanceof CudaError && error.isFatal) this.#lost = error;
      throw error;
    }
  }

  record(step: (launch: Launch) => void): Program {
    this.enter();
    const launches = joinLaunches(collectLaunches<Work>(this, step, (...launch) => this.#prepare(...launch)));
    const most = (want: (work: Work) => number | undefined) =>
      launches.reduce((bytes, work) => Math.max(bytes, want(work) ?? 0), 0);
    const scratchBytes = most((work) => (isMatmul(work) ? CUBLAS_WORKSPACE_BYTES : work.entry.scratchBytes));
    const counterBytes = 4 * most((work) => (isMatmul(work) ? 0 : work.entry.counters));
    const [scratch, counters] = [this.#scratch.borrow(scratchBytes), this.#counters.borrow(counterBytes)];
    const shared = { scratch: scratch.address, counters: counters.address };
    const giveBack = () => {
      this.#scratch.giveBack(scratch);
      this.#counters.giveBack(counters);
    };
    try {
      const program = new CudaProgram(this, launches, shared, giveBack);
      this.#programs.add(program);
      return program;
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** Enqueues one launch on the device's stream. */
  enqueue(work: Work, shared: SharedMemory): void {
    this.#launcher.enqueue(work, shared, this.stream);
  }

  #prepare(
    source: KernelSource,
    grid: number,
    buffers: readonly DeviceBuffer[],
    scalars: readonly number[],
  ): Work {
    checkLaunch(source, grid, buffers, scalars);
    const ranges = buffers.map((buffer) => ({ address: this.#own(buffer).address, bytes: buffer.bytes }));
    return this.#launcher.prepare(source, grid, ranges, scalars);
  }

  /** The launcher, once its context is current. */
  #entered(): CudaLauncher {
    this.enter();
    return this.#launcher;
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
      if (this.#lost === null) await this.#giveBack();
    } catch (error) {
      if (!(error instanceof CudaError && error.isFatal)) throw error;
      this.#lost = error;
    } finally {
      this.#closed = true;
      // A context that a kernel has broken takes everything with it here.
      if (this.#lost !== null) this.driver.attempt("cuDevicePrimaryCtxReset_v2", this.gpu.ordinal);
      this.driver.attempt("cuDevicePrimaryCtxRelease_v2", this.gpu.ordinal);
    }
  }

  async #giveBack(): Promise<void> {
    await this.idle();
    for (const program of this.#programs) program.free();
    this.#memory.releaseAll();
    this.#staging.release();
    this.#launcher.release();
    this.driver.call("cuStreamDestroy_v2", this.stream);
  }
}
