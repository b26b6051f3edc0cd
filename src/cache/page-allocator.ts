import { checkInteger } from "../base/checks.ts";

/**
 * Pages of the cache by number, each with a count of the block tables that name it: plain integers, no memory of its
 * own. A page is given out with one reference and is free again when the last one is released.
 */
export class PageAllocator {
  readonly pageCount: number;
  readonly #references: Uint32Array;
  readonly #free: number[];

  /** Pages 0…`pageCount` − 1, all free. Throws RangeError for fewer than one. */
  constructor(pageCount: number) {
    this.pageCount = checkInteger("pageCount", pageCount, { min: 1 });
    this.#references = new Uint32Array(pageCount);
    this.#free = Array.from({ length: pageCount }, (_, index) => pageCount - 1 - index);
  }

  get freePages(): number {
    return this.#free.length;
  }

  get usedPages(): number {
    return this.pageCount - this.#free.length;
  }

  /** `count` pages with one reference each, or null, and nothing taken, when fewer are free. */
  allocate(count: number): number[] | null {
    checkInteger("count", count, { min: 0 });
    if (count > this.#free.length) return null;
    const pages = this.#free.splice(this.#free.length - count, count).reverse();
    for (const page of pages) this.#references[page] = 1;
    return pages;
  }

  /** References to a page; 0 when it is free. Throws RangeError for a page that does not exist. */
  references(page: number): number {
    checkInteger("page", page, { min: 0, max: this.pageCount - 1 });
    return this.#references[page]!;
  }

  /** Adds a reference to a page in use. Throws RangeError for a free one. */
  retain(page: number): void {
    if (this.references(page) === 0)
      throw new RangeError(`page: expected a page in use, got free page ${page}`);
    this.#references[page]!++;
  }

  /** Takes one reference back. Throws RangeError for a page that is free already. */
  release(page: number): void {
    if (this.references(page) === 0)
      throw new RangeError(`page: expected a page in use, got free page ${page}`);
    this.#references[page]!--;
    if (this.#references[page] === 0) this.#free.push(page);
  }
}
