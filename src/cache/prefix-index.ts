/** A page whose tokens are known: all of it, or its first `tokens.length` when it was the end of a prompt. */
interface IndexedPage {
  /** Never given twice, so an entry whose predecessor is gone can no longer be reached. */
  readonly id: number;
  /** Entry of the page before it in the prompt; `PREFIX_ROOT` for the first. */
  readonly parent: number;
  readonly hash: number;
  readonly tokens: Int32Array;
  readonly page: number;
}

/** The entry before the first page of every prompt. */
export const PREFIX_ROOT = 0;

/** Successors kept of one page for `nearest`, the latest, so that a page followed by thousands costs no more. */
const MAX_SUCCESSORS = 32;

/** FNV-1a over the words `parent` and `tokens[from…to)`, as an unsigned 32-bit number. */
export function hashTokens(parent: number, tokens: ArrayLike<number>, from: number, to: number): number {
  let hash = Math.imul(0x811c9dc5 ^ parent, 0x01000193);
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ tokens[i]!, 0x01000193) ^ (hash >>> 15);
  return hash >>> 0;
}

/**
 * Which page holds which tokens after which others. A hash finds an entry, and its tokens confirm it: no two prompts are
 * ever mixed up. It knows pages by number alone; whoever gives a page to other contents calls `forget`.
 */
export class PrefixIndex {
  readonly #byHash = new Map<number, IndexedPage>();
  readonly #byPage = new Map<number, IndexedPage>();
  readonly #successors = new Map<number, Set<IndexedPage>>();
  #lastId = PREFIX_ROOT;

  /** The pages with an entry. */
  pages(): Iterable<number> {
    return this.#byPage.keys();
  }

  /** How many of its tokens a page is known by; 0 without an entry. */
  tokensOf(page: number): number {
    return this.#byPage.get(page)?.tokens.length ?? 0;
  }

  /** The entry of exactly `tokens[from…to)` after `parent`, or null. */
  find(parent: number, tokens: ArrayLike<number>, from: number, to: number): IndexedPage | null {
    const entry = this.#byHash.get(hashTokens(parent, tokens, from, to));
    if (entry === undefined || entry.parent !== parent || entry.tokens.length !== to - from) return null;
    return commonTokens(entry.tokens, tokens, from, to) === to - from ? entry : null;
  }

  /** Of the latest pages after `parent`, the one that shares most tokens with `tokens[from…to)`; null if none does. */
  nearest(
    parent: number,
    tokens: ArrayLike<number>,
    from: number,
    to: number,
  ): { page: number; tokens: number } | null {
    let best: { page: number; tokens: number } | null = null;
    for (const entry of this.#successors.get(parent) ?? []) {
      const common = commonTokens(entry.tokens, tokens, from, to);
      if (common > (best?.tokens ?? 0)) best = { page: entry.page, tokens: common };
    }
    return best;
  }

  /**
   * Notes that `page` holds `tokens[from…to)` after `parent` and returns the id of the entry: that of another page when
   * one holds the same already. A page with an entry gets a new one only for more tokens after the same parent.
   */
  add(parent: number, tokens: ArrayLike<number>, from: number, to: number, page: number): number {
    const known = this.find(parent, tokens, from, to);
    if (known !== null) return known.id;
    this.forget(page);
    const hash = hashTokens(parent, tokens, from, to);
    const taken = this.#byHash.get(hash);
    if (taken !== undefined) this.forget(taken.page);
    const words = Int32Array.from({ length: to - from }, (_, i) => tokens[from + i]!);
    const entry = { id: ++this.#lastId, parent, hash, tokens: words, page };
    this.#byHash.set(hash, entry);
    this.#byPage.set(page, entry);
    const successors = this.#successors.get(parent) ?? new Set<IndexedPage>();
    const [oldest] = successors;
    if (oldest !== undefined && successors.size === MAX_SUCCESSORS) successors.delete(oldest);
    this.#successors.set(parent, successors.add(entry));
    return entry.id;
  }

  /** Drops the entry of a page, if it has one; pages after it are found no more. */
  forget(page: number): void {
    const entry = this.#byPage.get(page);
    if (entry === undefined) return;
    this.#byPage.delete(page);
    this.#byHash.delete(entry.hash);
    const successors = this.#successors.get(entry.parent);
    successors?.delete(entry);
    if (successors?.size === 0) this.#successors.delete(entry.parent);
  }

  /** Drops all entries. */
  clear(): void {
    this.#byHash.clear();
    this.#byPage.clear();
    this.#successors.clear();
  }
}

/** Length of the common beginning of `known` and `tokens[from…to)`. */
function commonTokens(known: Int32Array, tokens: ArrayLike<number>, from: number, to: number): number {
  const length = Math.min(known.length, to - from);
  let common = 0;
  while (common < length && known[common] === tokens[from + common]) common++;
  return common;
}
