import type { CudaBuffer } from "./cuda-buffer.ts";

/**
 * Memory that programs need only while they run, lent to all of them at once, since a device's one stream runs them one after
 * the other. A larger wish makes a larger buffer; an older one stays as long as a program has it.
 */
export class SharedBuffer {
  readonly #allocate: (bytes: number) => CudaBuffer;
  readonly #borrowers = new Map<CudaBuffer, number>();
  #current: CudaBuffer | null = null;

  constructor(allocate: (bytes: number) => CudaBuffer) {
    this.#allocate = allocate;
  }

  /** A buffer of at least `bytes` bytes, until {@link giveBack}. */
  borrow(bytes: number): CudaBuffer {
    if (this.#current === null || this.#current.bytes < bytes) this.#current = this.#allocate(bytes);
    this.#borrowers.set(this.#current, (this.#borrowers.get(this.#current) ?? 0) + 1);
    return this.#current;
  }

  giveBack(buffer: CudaBuffer): void {
    const left = (this.#borrowers.get(buffer) ?? 1) - 1;
    this.#borrowers.set(buffer, left);
    if (left > 0) return;
    this.#borrowers.delete(buffer);
    if (this.#current === buffer) this.#current = null;
    buffer.free();
  }
}
