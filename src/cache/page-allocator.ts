import { checkInteger } from "../base/checks.ts";

/**
 * Pages of the cache by number, each with a count of the block tables that name it: plain integers, no memory of its
 * own. A page is given out with one reference and is free again when the last one is released. Free pages form a queue,
 * a ring of links through the sentinel `pageCount`: given out from its front, put back at either end.
 */
export class PageAllocator {
  readonly pageCount: number;
  readonly #references: Uint32Array;
  readonly #next: Uint32Array;
  readonly #previous: Uint32Array;
  #freePages: number;

  /** Pages 0…`pageCount` − 1, all free. Throws RangeError for fewer than one. */
  constructor(pageCount: number) {
    this.pageCount = checkInteger("pageCount", pageCount, { min: 1, max: 2 ** 31 });
    const ring = pageCount + 1;
    this.#references = new Uint32Array(pageCount);
    this.#next = Uint32Array.from({ length: ring }, (_, page) => (page + 1) % ring);
    this.#previous = Uint32Array.from({ length: ring }, (_, page) => (page + pageCount) % ring);
    this.#freePages = pageCount;
  }

  get freePages(): number {
    return this.#freePages;
  }

  get usedPages(): number {
    return this.pageCount - this.#freePages;
  }

  /** `count` pages with one reference each, or null, and nothing taken, when fewer are free. */
  allocate(count: number): number[] | null {
    checkInteger("count", count, { min: 0 });
    if (count > this.#freePages) return null;
    return Array.from({ length: count }, () => this.#take(this.#next[this.pageCount]!));
  }

  /** References to a page; 0 when it is free. Throws RangeError for a page that does not exist. */
  references(page: number): number {
    checkInteger("page", page, { min: 0, max: this.pageCount - 1 });
    return this.#references[page]!;
  }

  /** Adds a reference to a page in use, or takes a free one, with what it still holds, out of the queue. */
  retain(page: number): void {
    if (this.references(page) === 0) this.#take(page);
    else this.#references[page]!++;
  }

  /**
   * Takes one reference back; the last one puts the page at the front of the queue, or at its end when `reuse` is
   * "late" because its contents may be wanted again. Throws RangeError for a page that is free already.
   */
  release(page: number, reuse: "soon" | "late" = "soon"): void {
    if (this.references(page) === 0)
      throw new RangeError(`page: expected a page in use, got free page ${page}`);
    this.#references[page]!--;
    if (this.#references[page] !== 0) return;
    const before = reuse === "soon" ? this.pageCount : this.#previous[this.pageCount]!;
    this.#link(before, page, this.#next[before]!);
    this.#freePages++;
  }

  #take(page: number): number {
    this.#join(this.#previous[page]!, this.#next[page]!);
    this.#references[page] = 1;
    this.#freePages--;
    return page;
  }

  #link(before: number, page: number, after: number): void {
    this.#join(before, page);
    this.#join(page, after);
  }

  #join(before: number, after: number): void {
    this.#next[before] = after;
    this.#previous[after] = before;
  }
}
