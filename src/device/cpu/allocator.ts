/** A free or used range of the address space. */
interface Range {
  start: number;
  bytes: number;
}

/**
 * First-fit allocator of integer ranges over `[start, limit)`: plain bookkeeping, no memory of its own.
 * Neighbouring free ranges are joined, so that freeing everything leaves one range.
 */
export class RangeAllocator {
  readonly #alignment: number;
  readonly #capacity: number;
  readonly #used = new Map<number, number>();
  #free: Range[];
  #usedBytes = 0;
  #peakBytes = 0;

  constructor(start: number, limit: number, alignment: number) {
    this.#alignment = alignment;
    const first = Math.ceil(start / alignment) * alignment;
    this.#capacity = limit - first;
    this.#free = [{ start: first, bytes: this.#capacity }];
  }

  get capacity(): number {
    return this.#capacity;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Largest single range that could be allocated now. */
  get largestFree(): number {
    return this.#free.reduce((most, range) => Math.max(most, range.bytes), 0);
  }

  /** Start of a fresh range, or null when none is large enough. */
  allocate(bytes: number): number | null {
    const size = Math.max(1, Math.ceil(bytes / this.#alignment)) * this.#alignment;
    const index = this.#free.findIndex((range) => range.bytes >= size);
    const range = this.#free[index];
    if (range === undefined) return null;
    const start = range.start;
    if (range.bytes === size) this.#free.splice(index, 1);
    else this.#free[index] = { start: start + size, bytes: range.bytes - size };
    this.#used.set(start, size);
    this.#usedBytes += size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#usedBytes);
    return start;
  }

  /** Gives a range back. Throws RangeError for a start that is not in use. */
  release(start: number): void {
    const bytes = this.#used.get(start);
    if (bytes === undefined) throw new RangeError(`release: no range in use starts at ${start}`);
    this.#used.delete(start);
    this.#usedBytes -= bytes;
    const after = this.#free.findIndex((range) => range.start > start);
    const index = after === -1 ? this.#free.length : after;
    this.#free.splice(index, 0, { start, bytes });
    this.#join(index);
    if (index > 0) this.#join(index - 1);
  }

  /** Joins the free range at `index` with the next one where they touch. */
  #join(index: number): void {
    const range = this.#free[index];
    const next = this.#free[index + 1];
    if (range === undefined || next === undefined || range.start + range.bytes !== next.start) return;
    range.bytes += next.bytes;
    this.#free.splice(index + 1, 1);
  }
}
