import { UserError } from "../../base/errors.ts";
import { mebibytes } from "../../base/mebibytes.ts";
import type { Device, DeviceBuffer, KernelSource, Launch, Program } from "../device.ts";
import { checkLaunch, checkRange, collectLaunches } from "../launch-checks.ts";
import { RangeAllocator } from "./allocator.ts";
import { CpuBuffer } from "./cpu-buffer.ts";
import { type Command, CpuProgram, programBytes } from "./cpu-program.ts";
import { processorCount, threadObstacle } from "./platform.ts";
import { ThreadPool } from "./thread-pool.ts";
import { loadWasmModule, type WasmVariant } from "./wasm-module.ts";

const PAGE = 65536;
const MAX_PAGES = 65536;
const MIN_PAGES = 4096;
const ALIGNMENT = 256;

/** How a CPU device is opened. */
export interface CpuDeviceOptions {
  /** Threads that share the work, the caller included; default: all processors, at most 16. */
  readonly threads?: number;
  /** A build of the kernels; default: relaxed SIMD where the runtime has it. */
  readonly variant?: WasmVariant;
  /** Fills fresh buffers with NaN bytes (0xff), so that reading what was never written shows. For tests. */
  readonly poison?: boolean;
}

interface ReservedMemory {
  readonly memory: WebAssembly.Memory;
  /** What it may grow to. */
  readonly pages: number;
}

/**
 * Shared memory that may grow as far as the runtime has addresses for: 4 GiB, or on some phones less. Only what is used takes
 * room. A page that is not cross-origin isolated may make shared memory too, though not pass it on.
 */
function reserveMemory(initial: number): ReservedMemory {
  for (let pages = MAX_PAGES; ; pages /= 2) {
    try {
      return { memory: new WebAssembly.Memory({ initial, maximum: pages, shared: true }), pages };
    } catch (cause) {
      if (pages / 2 >= Math.max(initial, MIN_PAGES)) continue;
      throw new UserError(
        "This runtime has no room for the CPU device's memory; close other pages or programs.",
        {
          cause,
        },
      );
    }
  }
}

/** The processor as a device: WebAssembly kernels, worker threads over one shared memory of at most 4 GiB. */
export class CpuDevice implements Device {
  readonly kind = "cpu";
  readonly name: string;
  readonly limits;
  readonly #memory: WebAssembly.Memory;
  readonly #allocator: RangeAllocator;
  readonly #pool: ThreadPool;
  readonly #poison: boolean;
  #closed = false;

  private constructor(
    { memory, pages }: ReservedMemory,
    pool: ThreadPool,
    variant: WasmVariant,
    poison: boolean,
  ) {
    this.#memory = memory;
    this.#pool = pool;
    this.#poison = poison;
    this.#allocator = new RangeAllocator(
      PAGE + ThreadPool.bytes(pool.threads),
      pages * PAGE - PAGE,
      ALIGNMENT,
    );
    const features = new Set(variant === "relaxed" ? ["simd", "relaxed-simd"] : ["simd"]);
    this.limits = { memoryBytes: this.#allocator.capacity, computeUnits: pool.threads, features };
    const simd = variant === "relaxed" ? "relaxed SIMD" : "SIMD";
    this.name = `WebAssembly ${simd}, ${pool.threads} thread${pool.threads === 1 ? "" : "s"}`;
  }

  /** Compiles the kernels and starts the threads. Throws UserError where the runtime lacks SIMD or threads. */
  static async open(options: CpuDeviceOptions = {}): Promise<CpuDevice> {
    const obstacle = threadObstacle();
    const threads = options.threads ?? (obstacle === null ? Math.min(16, await processorCount()) : 1);
    if (!Number.isInteger(threads)) throw new TypeError(`threads: expected an integer, got ${threads}`);
    if (threads < 1 || threads > 256) throw new RangeError(`threads: expected 1 to 256, got ${threads}`);
    if (threads > 1 && obstacle !== null)
      throw new UserError(`There can be one thread only, since ${obstacle}.`);
    const { module, variant } = await loadWasmModule(options.variant);
    const memory = reserveMemory(1 + Math.ceil(ThreadPool.bytes(threads) / PAGE));
    const pool = await ThreadPool.start(memory.memory, module, threads, PAGE);
    return new CpuDevice(memory, pool, variant, options.poison ?? false);
  }

  get memory(): { usedBytes: number; peakBytes: number } {
    return { usedBytes: this.#allocator.usedBytes, peakBytes: this.#allocator.peakBytes };
  }

  allocate(bytes: number, label: string): DeviceBuffer {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new RangeError(`${label}: expected a size in bytes, got ${bytes}`);
    }
    this.#checkOpen();
    const address = this.#allocator.allocate(bytes);
    if (address === null) throw this.#outOfMemory(bytes, label);
    this.#grow(address + bytes + ALIGNMENT, bytes, label);
    if (this.#poison) new Uint8Array(this.#memory.buffer, address, bytes).fill(0xff);
    return new CpuBuffer(this, address, bytes, label, true);
  }

  #grow(end: number, bytes: number, label: string): void {
    const missing = Math.ceil(end / PAGE) - this.#memory.buffer.byteLength / PAGE;
    if (missing <= 0) return;
    try {
      this.#memory.grow(missing);
    } catch (cause) {
      throw this.#outOfMemory(bytes, label, cause);
    }
  }

  #outOfMemory(bytes: number, label: string, cause?: unknown): UserError {
    const left = mebibytes(this.#allocator.largestFree);
    const capacity = mebibytes(this.#allocator.capacity);
    return new UserError(
      `The CPU device has no room for ${label} (${mebibytes(bytes)}): ${left} of its ${capacity} are free.`,
      { cause },
    );
  }

  write(buffer: DeviceBuffer, data: ArrayBufferView, byteOffset = 0): void {
    const target = this.#own(buffer);
    checkRange(buffer, byteOffset, data.byteLength);
    const source = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    new Uint8Array(this.#memory.buffer, target.address + byteOffset, data.byteLength).set(source);
  }

  async read(buffer: DeviceBuffer, byteOffset: number, bytes: number): Promise<ArrayBuffer> {
    const source = this.#own(buffer);
    checkRange(buffer, byteOffset, bytes);
    const copy = new Uint8Array(bytes);
    copy.set(new Uint8Array(this.#memory.buffer, source.address + byteOffset, bytes));
    return copy.buffer;
  }

  record(step: (launch: Launch) => void): Program {
    this.#checkOpen();
    const commands = collectLaunches<Command>(this, step, (...launch) => this.#prepare(...launch));
    const memory = this.allocate(programBytes(commands), "program") as CpuBuffer;
    const view = new DataView(this.#memory.buffer, memory.address, memory.bytes);
    return new CpuProgram(this.#pool, memory, commands, view);
  }

  #prepare(
    source: KernelSource,
    grid: number,
    buffers: readonly DeviceBuffer[],
    scalars: readonly number[],
  ): Command {
    if (source.cpu === undefined || !this.#pool.kernelIndex.has(source.cpu))
      throw new RangeError(`${source.name}: no CPU kernel ${source.cpu ?? "for it"}`);
    checkLaunch(source, grid, buffers, scalars);
    return { source, grid, buffers: buffers.map((buffer) => this.#own(buffer)), scalars };
  }

  /** Gives a buffer's memory back; called by the buffer. */
  release(address: number): void {
    if (!this.#closed) this.#allocator.release(address);
  }

  #own(buffer: DeviceBuffer): CpuBuffer {
    this.#checkOpen();
    if (buffer instanceof CpuBuffer && buffer.device === this) return buffer;
    throw new TypeError(`${buffer.label}: expected a buffer of this device`);
  }

  #checkOpen(): void {
    if (this.#closed) throw new UserError("The CPU device is closed.");
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#pool.close();
  }
}
