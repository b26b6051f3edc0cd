import { checkInteger } from "../base/checks.ts";
import { PageAllocator } from "./page-allocator.ts";

/** What one sequence holds in the cache; every layer uses the same page numbers. */
export interface CachedSequence {
  /** Tokens in the cache. */
  readonly length: number;
  /** Page of tokens 64·i … 64·i + 63, by i; pages may be reserved past `length`. */
  readonly pages: readonly number[];
}

class Sequence implements CachedSequence {
  length = 0;
  pages: number[] = [];
  freed = false;
}

/** Block tables and slots of all sequences: which page holds which tokens. It knows no device. */
export class PagedLatentCache {
  readonly pageSize: number;
  readonly allocator: PageAllocator;

  /** `pageCount` pages of `pageSize` tokens each. Throws RangeError for sizes below 1. */
  constructor(pageCount: number, pageSize: number) {
    this.pageSize = checkInteger("pageSize", pageSize, { min: 1 });
    this.allocator = new PageAllocator(pageCount);
  }

  /** A sequence without tokens or pages. */
  create(): CachedSequence {
    return new Sequence();
  }

  /**
   * A sequence that starts with the first `tokens` tokens of `parent` and shares their pages. Throws RangeError unless
   * `tokens` fills whole pages that `parent` has written.
   */
  fork(parent: CachedSequence, tokens: number): CachedSequence {
    checkInteger("tokens", tokens, { min: 0, max: open(parent).length });
    if (tokens % this.pageSize !== 0) {
      throw new RangeError(`tokens: expected a multiple of ${this.pageSize}, got ${tokens}`);
    }
    const child = new Sequence();
    child.pages = parent.pages.slice(0, tokens / this.pageSize);
    child.length = tokens;
    for (const page of child.pages) this.allocator.retain(page);
    return child;
  }

  /** Pages that `reserve` would take for `tokens` more tokens. */
  pagesNeeded(sequence: CachedSequence, tokens: number): number {
    checkInteger("tokens", tokens, { min: 0 });
    const pages = Math.ceil((sequence.length + tokens) / this.pageSize);
    return Math.max(0, pages - sequence.pages.length);
  }

  /** Takes the pages for `tokens` more tokens; false, and nothing taken, when too few are free. */
  reserve(sequence: CachedSequence, tokens: number): boolean {
    const taken = this.allocator.allocate(this.pagesNeeded(open(sequence), tokens));
    if (taken === null) return false;
    open(sequence).pages.push(...taken);
    return true;
  }

  /**
   * Appends `tokens` tokens and writes their slots, page · pageSize + offset, to `slots` from `at` on. Throws RangeError
   * when the pages are not reserved, `slots` is too short, or another sequence shares the page.
   */
  append(sequence: CachedSequence, tokens: number, slots: Int32Array, at = 0): void {
    const own = open(sequence);
    checkInteger("tokens", tokens, { min: 0, max: own.pages.length * this.pageSize - own.length });
    checkInteger("at", at, { min: 0, max: slots.length - tokens });
    for (let i = 0; i < tokens; i++) {
      const position = own.length + i;
      const page = own.pages[Math.floor(position / this.pageSize)]!;
      if (this.allocator.references(page) !== 1) {
        throw new RangeError(`sequence: page ${page} is shared and must not be written`);
      }
      slots[at + i] = page * this.pageSize + (position % this.pageSize);
    }
    own.length += tokens;
  }

  /** Drops the tokens from `length` on, and the pages that hold none after. Throws RangeError past the end. */
  truncate(sequence: CachedSequence, length: number): void {
    const own = open(sequence);
    checkInteger("length", length, { min: 0, max: own.length });
    const kept = Math.ceil(length / this.pageSize);
    for (const page of own.pages.splice(kept)) this.allocator.release(page);
    own.length = length;
  }

  /** Gives all pages of the sequence back. Throws RangeError the second time. */
  free(sequence: CachedSequence): void {
    this.truncate(sequence, 0);
    open(sequence).freed = true;
  }

  /**
   * Writes the sequence's row of the block table, i32 [maxPages], to `table` from `at` on, −1 after its pages. Throws
   * RangeError when it has more than `maxPages` pages or `table` is too short.
   */
  writeBlockTable(sequence: CachedSequence, table: Int32Array, at: number, maxPages: number): void {
    const { pages } = open(sequence);
    checkInteger("maxPages", maxPages, { min: pages.length });
    checkInteger("at", at, { min: 0, max: table.length - maxPages });
    table.fill(-1, at, at + maxPages);
    table.set(pages, at);
  }
}

function open(sequence: CachedSequence): Sequence {
  if (!(sequence instanceof Sequence))
    throw new TypeError("sequence: expected one that create() or fork() made");
  if (sequence.freed) throw new RangeError("sequence: expected one in use, got one that was freed");
  return sequence;
}
