import { checkInteger } from "../base/checks.ts";
import { PageAllocator } from "./page-allocator.ts";
import { hashTokens, PREFIX_ROOT, PrefixIndex } from "./prefix-index.ts";

/** What one sequence holds in the cache; every layer uses the same page numbers. */
export interface CachedSequence {
  /** Tokens in the cache. */
  readonly length: number;
  /** Page of tokens pageSize·i … by i; pages may be reserved past `length`. */
  readonly pages: readonly number[];
}

/** A page whose contents are to be copied before anything else is written. */
export interface PageCopy {
  readonly from: number;
  readonly to: number;
}

class Sequence implements CachedSequence {
  length = 0;
  pages: number[] = [];
  /** By page, the entry of the index that it continues; only pages that were published or taken over have one. */
  entries: number[] = [];
  freed = false;

  get lastEntry(): number {
    return this.entries.at(-1) ?? PREFIX_ROOT;
  }
}

/**
 * Block tables and slots of all sequences: which page holds which tokens, and which pages several prompts share. It
 * knows no device. A page is written by one sequence only; freed pages keep what they hold, and may be found again,
 * until they are given out.
 */
export class PagedLatentCache {
  readonly pageSize: number;
  readonly allocator: PageAllocator;
  readonly #prefixes = new PrefixIndex();

  /** `pageCount` pages of `pageSize` tokens each. Throws RangeError for sizes below 1. */
  constructor(pageCount: number, pageSize: number) {
    this.pageSize = checkInteger("pageSize", pageSize, { min: 1 });
    this.allocator = new PageAllocator(pageCount);
  }

  /** Free pages whose contents can still be found. */
  get reusablePages(): number {
    let free = 0;
    for (const page of this.#prefixes.pages()) if (this.allocator.references(page) === 0) free++;
    return free;
  }

  /** A sequence without tokens or pages. */
  create(): CachedSequence {
    return new Sequence();
  }

  /** Pages that `reserve` would take for `tokens` more tokens. */
  pagesNeeded(sequence: CachedSequence, tokens: number): number {
    checkInteger("tokens", tokens, { min: 0 });
    const pages = Math.ceil((sequence.length + tokens) / this.pageSize);
    return Math.max(0, pages - sequence.pages.length);
  }

  /** Takes the pages for `tokens` more tokens; false, and nothing taken, when too few are free. */
  reserve(sequence: CachedSequence, tokens: number): boolean {
    const own = open(sequence);
    const needed = this.pagesNeeded(own, tokens);
    if (needed === 0) return true;
    const taken = this.allocator.allocate(needed);
    if (taken === null) return false;
    for (const page of taken) this.#prefixes.forget(page);
    own.pages.push(...taken);
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
    const end = own.length + tokens;
    for (let position = own.length; position < end; ) {
      const offset = position % this.pageSize;
      const page = this.#writable(own, (position - offset) / this.pageSize, offset);
      const count = Math.min(this.pageSize - offset, end - position);
      const first = at + position - own.length;
      for (let i = 0; i < count; i++) slots[first + i] = page * this.pageSize + offset + i;
      position += count;
    }
    own.length = end;
  }

  /**
   * Lets the sequence, which holds the beginning of the prompt `tokens`, share the whole pages that others published
   * after it, up to `limit` tokens; pages it had reserved for them are given back. Returns the tokens gained.
   */
  reusePages(sequence: CachedSequence, tokens: ArrayLike<number>, limit: number): number {
    const own = this.#prompt(sequence);
    const before = own.length;
    for (;;) {
      const index = own.entries.length;
      const end = (index + 1) * this.pageSize;
      const known = end > limit ? null : this.#prefixes.find(own.lastEntry, tokens, end - this.pageSize, end);
      if (known === null) return own.length - before;
      this.allocator.retain(known.page);
      if (index < own.pages.length) this.#release(own.pages[index]!);
      own.pages[index] = known.page;
      own.entries.push(known.id);
      own.length = end;
    }
  }

  /**
   * Lets the sequence take over the beginning of a page that others published after its own whole pages, up to `limit`
   * tokens: the copy to make into its reserved page, or null when no page shares enough to be worth it.
   */
  reusePart(sequence: CachedSequence, tokens: ArrayLike<number>, limit: number): PageCopy | null {
    const own = this.#prompt(sequence);
    const index = own.entries.length;
    const start = index * this.pageSize;
    const to = own.pages[index];
    const end = Math.min(limit, start + this.pageSize);
    if (to === undefined || end <= own.length) return null;
    const nearest = this.#prefixes.nearest(own.lastEntry, tokens, start, end);
    const length = start + (nearest?.tokens ?? 0);
    const isWorthwhile = length === end || length - own.length >= Math.ceil(this.pageSize / 16);
    if (nearest === null || length <= own.length || !isWorthwhile) return null;
    own.length = length;
    return { from: nearest.page, to };
  }

  /**
   * Lets others find what the sequence holds of the prompt `tokens`: whole pages, and with the prompt complete its last
   * one too. Only what was computed as every other prompt would compute it may be published.
   */
  publish(sequence: CachedSequence, tokens: ArrayLike<number>): void {
    const own = open(sequence);
    const held = Math.min(own.length, tokens.length);
    for (;;) {
      const index = own.entries.length;
      const start = index * this.pageSize;
      const end = Math.min(start + this.pageSize, tokens.length);
      if (end > held || end === start) return;
      const entry = this.#prefixes.add(own.lastEntry, tokens, start, end, own.pages[index]!);
      if (end - start < this.pageSize) return;
      own.entries.push(entry);
    }
  }

  /** A number that is the same for sequences that would compute the same next page of their prompts. */
  nextPageKey(sequence: CachedSequence, tokens: ArrayLike<number>): number {
    const { entries, lastEntry } = this.#prompt(sequence);
    const start = entries.length * this.pageSize;
    return hashTokens(lastEntry, tokens, start, Math.min(start + this.pageSize, tokens.length));
  }

  /** Makes everything published unfindable, when what the pages hold is no longer trusted. */
  forgetPublished(): void {
    this.#prefixes.clear();
  }

  /** Drops the tokens from `length` on, and the pages that hold none after. Throws RangeError past the end. */
  truncate(sequence: CachedSequence, length: number): void {
    const own = open(sequence);
    checkInteger("length", length, { min: 0, max: own.length });
    const kept = Math.ceil(length / this.pageSize);
    // The last page first: pages that are found only through others are then given out before those.
    while (own.pages.length > kept) this.#release(own.pages.pop()!);
    own.entries.length = Math.min(own.entries.length, Math.floor(length / this.pageSize));
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

  /** The page by index, to be written from `offset` on; what is overwritten can no longer be found. */
  #writable(own: Sequence, index: number, offset: number): number {
    const page = own.pages[index]!;
    if (this.allocator.references(page) !== 1) {
      throw new RangeError(`sequence: page ${page} is shared and must not be written`);
    }
    if (offset < this.#prefixes.tokensOf(page)) this.#prefixes.forget(page);
    return page;
  }

  #release(page: number): void {
    this.allocator.release(page, this.#prefixes.tokensOf(page) > 0 ? "late" : "soon");
  }

  /** The sequence, in which every whole page so far was published or taken over. */
  #prompt(sequence: CachedSequence): Sequence {
    const own = open(sequence);
    if (own.entries.length !== Math.floor(own.length / this.pageSize)) {
      throw new RangeError("sequence: expected one whose pages were published as they filled");
    }
    return own;
  }
}

function open(sequence: CachedSequence): Sequence {
  if (!(sequence instanceof Sequence)) throw new TypeError("sequence: expected one that create() made");
  if (sequence.freed) throw new RangeError("sequence: expected one in use, got one that was freed");
  return sequence;
}
