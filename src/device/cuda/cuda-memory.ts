import { UserError } from "../../base/errors.ts";
import { mebibytes } from "../../base/mebibytes.ts";
import { type BufferOwner, CudaBuffer } from "./cuda-buffer.ts";
import { type CudaDriver, CudaError, OUT_OF_MEMORY } from "./driver.ts";
import type { Gpu } from "./gpu.ts";

/** The buffers of one device, and how much they take. */
export class CudaMemory {
  readonly #driver: CudaDriver;
  readonly #gpu: Gpu;
  readonly #stream: bigint;
  readonly #live = new Set<CudaBuffer>();
  /** Bytes that nobody used when the device was opened: what it can give out. */
  readonly freeAtOpening: number;
  usedBytes = 0;
  peakBytes = 0;

  /** The context must be current. */
  constructor(driver: CudaDriver, gpu: Gpu, stream: bigint) {
    this.#driver = driver;
    this.#gpu = gpu;
    this.#stream = stream;
    this.freeAtOpening = this.#freeBytes();
  }

  #freeBytes(): number {
    const [free, all] = [new BigUint64Array(1), new BigUint64Array(1)];
    this.#driver.call("cuMemGetInfo_v2", free, all);
    return Number(free[0]);
  }

  /** What the GPU's memory lost since the device was opened, whoever took it. */
  reservedBytes(): number {
    return this.freeAtOpening - this.#freeBytes();
  }

  /** A buffer, filled with the byte `fill`. Throws UserError that says what was wanted, and what there is. */
  allocate(owner: BufferOwner, bytes: number, label: string, fill: number | null): CudaBuffer {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new RangeError(`${label}: expected a size in bytes, got ${bytes}`);
    }
    const buffer = new CudaBuffer(owner, this.#reserve(Math.max(bytes, 1), label), bytes, label, true);
    this.#live.add(buffer);
    this.usedBytes += bytes;
    this.peakBytes = Math.max(this.peakBytes, this.usedBytes);
    if (fill !== null) {
      this.#driver.call("cuMemsetD8Async", buffer.address, fill, Math.max(bytes, 1), this.#stream);
    }
    return buffer;
  }

  #reserve(bytes: number, label: string): bigint {
    try {
      return this.#driver.result("cuMemAlloc_v2", bytes);
    } catch (cause) {
      if (!(cause instanceof CudaError) || cause.code !== OUT_OF_MEMORY) throw cause;
      const free = this.#freeBytes();
      throw new UserError(
        `${this.#gpu.name} has no room for ${label}: it takes ${mebibytes(bytes)} and at most ${mebibytes(free)} are left of ` +
          `${mebibytes(this.#gpu.memoryBytes)}, with ${mebibytes(this.usedBytes)} in use here.`,
        { cause },
      );
    }
  }

  /** Gives a buffer back once submitted work is done with it; nothing for one that was given back. */
  release(buffer: CudaBuffer): void {
    if (!this.#live.delete(buffer)) return;
    this.#driver.call("cuStreamSynchronize", this.#stream);
    this.#driver.call("cuMemFree_v2", buffer.address);
    this.usedBytes -= buffer.bytes;
  }

  releaseAll(): void {
    for (const buffer of this.#live) this.release(buffer);
  }
}
