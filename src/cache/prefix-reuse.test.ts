import { expect, it } from "vitest";
import { createRandom } from "../base/random.ts";
import { type CachedSequence, PagedLatentCache } from "./paged-latent-cache.ts";
import { hashTokens, PREFIX_ROOT, PrefixIndex } from "./prefix-index.ts";

const PAGES = 24;
const PAGE_SIZE = 4;

/** A sequence, the prompt it belongs to, and everything it holds. */
interface Tracked {
  readonly sequence: CachedSequence;
  readonly prompt: number[];
  readonly tokens: number[];
}

/** What lies in the memory of the pages: by slot, a number for the whole history up to its token. */
class Memory {
  readonly histories = new Array<string>(PAGES * PAGE_SIZE).fill("poison");

  write(slots: Int32Array, tokens: readonly number[], from: number): void {
    slots.forEach((slot, i) => {
      this.histories[slot] = tokens.slice(0, from + i + 1).join(",");
    });
  }

  copy(from: number, to: number): void {
    const page = this.histories.slice(from * PAGE_SIZE, (from + 1) * PAGE_SIZE);
    this.histories.splice(to * PAGE_SIZE, PAGE_SIZE, ...page);
  }

  expectHolds({ sequence, tokens }: Tracked): void {
    if (sequence.length !== tokens.length) throw new Error(`length ${sequence.length}, not ${tokens.length}`);
    for (let position = 0; position < tokens.length; position++) {
      const page = sequence.pages[Math.floor(position / PAGE_SIZE)]!;
      const held = this.histories[page * PAGE_SIZE + (position % PAGE_SIZE)];
      const expected = tokens.slice(0, position + 1).join(",");
      if (held !== expected) throw new Error(`page ${page} holds ${held}, not ${expected}`);
    }
  }
}

function expectCounted(cache: PagedLatentCache, live: readonly Tracked[]): void {
  const counts = new Array<number>(PAGES).fill(0);
  for (const { sequence } of live) for (const page of sequence.pages) counts[page]!++;
  counts.forEach((count, page) => {
    if (cache.allocator.references(page) !== count) throw new Error(`page ${page} is counted wrongly`);
  });
  expect(cache.allocator.usedPages).toBe(counts.filter((count) => count > 0).length);
}

/** Random prompts of two letters, so that beginnings coincide, taken, extended past their end and freed. */
class Load {
  readonly cache = new PagedLatentCache(PAGES, PAGE_SIZE);
  readonly memory = new Memory();
  readonly live: Tracked[] = [];
  reused = 0;
  readonly below: (limit: number) => number;

  constructor(seed: number) {
    const random = createRandom(seed);
    this.below = (limit) => random.integer(limit);
  }

  step(): void {
    const chosen = this.live[this.below(8)];
    if (chosen === undefined) {
      this.start();
      return;
    }
    const action = this.below(5);
    if (action === 0) this.end(chosen);
    else if (action === 1 && chosen.tokens.length > chosen.prompt.length) this.truncate(chosen);
    else this.extend(chosen);
    this.memory.expectHolds(chosen);
  }

  start(): void {
    const prompt = Array.from({ length: 1 + this.below(20) }, () => this.below(2));
    this.live.push({ sequence: this.cache.create(), prompt, tokens: [] });
  }

  end(chosen: Tracked): void {
    this.live.splice(this.live.indexOf(chosen), 1);
    this.cache.free(chosen.sequence);
    chosen.tokens.length = 0;
  }

  truncate({ sequence, prompt, tokens }: Tracked): void {
    tokens.length = prompt.length + this.below(tokens.length - prompt.length);
    this.cache.truncate(sequence, tokens.length);
  }

  extend({ sequence, prompt, tokens }: Tracked): void {
    const missing = prompt.length - tokens.length;
    if (missing > 0) this.reuse({ sequence, prompt, tokens });
    const count = missing > 0 ? 1 + this.below(prompt.length - tokens.length) : 1 + this.below(3);
    const fits = this.cache.pagesNeeded(sequence, count) <= this.cache.allocator.freePages;
    expect(this.cache.reserve(sequence, count)).toBe(fits);
    if (!fits) return;
    const slots = new Int32Array(count);
    this.cache.append(sequence, count, slots);
    const from = tokens.length;
    // Generated tokens are letters of their own: a page of them must never be found as a page of a prompt.
    for (let i = 0; i < count; i++) tokens.push(missing > 0 ? prompt[from + i]! : 2 + this.below(2));
    this.memory.write(slots, tokens, from);
    if (missing > 0) this.cache.publish(sequence, prompt);
  }

  reuse({ sequence, prompt, tokens }: Tracked): void {
    this.cache.reusePages(sequence, prompt, prompt.length - 1);
    this.cache.reserve(sequence, 1);
    const copy = this.cache.reusePart(sequence, prompt, prompt.length - 1);
    if (copy !== null) this.memory.copy(copy.from, copy.to);
    this.reused += sequence.length - tokens.length;
    tokens.push(...prompt.slice(tokens.length, sequence.length));
  }
}

it.each([1, 2, 3, 4])(
  "pages=24 pageSize=4, 20,000 random steps of seed %i: every sequence holds its own history, no page is lost",
  (seed) => {
    const load = new Load(seed);
    for (let step = 0; step < 20_000; step++) {
      load.step();
      if (step % 16 === 0) {
        expectCounted(load.cache, load.live);
        for (const tracked of load.live) load.memory.expectHolds(tracked);
      }
    }
    expect(load.reused).toBeGreaterThan(5000);
    for (const tracked of [...load.live]) load.end(tracked);
    expect(load.cache.allocator.freePages).toBe(PAGES);
    expect(load.cache.reusablePages).toBeGreaterThan(4);
  },
);

function filled(cache: PagedLatentCache, prompt: readonly number[]): CachedSequence {
  const sequence = cache.create();
  cache.reserve(sequence, prompt.length);
  cache.append(sequence, prompt.length, new Int32Array(prompt.length));
  cache.publish(sequence, prompt);
  return sequence;
}

it("pageSize=4: whole pages are shared, a part is copied, and what is shared is not written", () => {
  const cache = new PagedLatentCache(8, 4);
  const first = filled(cache, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  const second = cache.create();
  const prompt = [1, 2, 3, 4, 5, 6, 7, 8];
  expect(cache.reusePages(second, prompt, 7)).toBe(4);
  cache.reserve(second, 4);
  expect(cache.reusePart(second, prompt, 7)).toEqual({ from: first.pages[1], to: 3 });
  expect([second.length, second.pages]).toEqual([7, [0, 3]]);
  const third = cache.create();
  expect(cache.reusePages(third, prompt, 8)).toBe(8);
  cache.truncate(third, 7);
  expect(() => cache.append(third, 1, new Int32Array(1))).toThrow("page 1 is shared");
});

it("pageSize=4: freed pages are found again until they are given out, the end of a prompt first", () => {
  const cache = new PagedLatentCache(3, 4);
  const prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  cache.free(filled(cache, prompt));
  expect(cache.reusablePages).toBe(3);
  const other = cache.create();
  cache.reserve(other, 5);
  const again = cache.create();
  expect(cache.reusePages(again, prompt, 9)).toBe(4);
  cache.forgetPublished();
  expect(cache.reusePages(cache.create(), prompt, 9)).toBe(0);
});

it("overwriting what was published makes it unfindable", () => {
  const cache = new PagedLatentCache(3, 4);
  const sequence = filled(cache, [1, 2, 3, 4]);
  cache.truncate(sequence, 2);
  cache.append(sequence, 1, new Int32Array(1));
  expect(cache.reusePages(cache.create(), [1, 2, 3, 4], 4)).toBe(0);
});

it("a page is found after its own predecessor only, whatever the hash", () => {
  const [parent, other] = [7, 7 + 2 ** 32];
  expect(hashTokens(parent, [1], 0, 1)).toBe(hashTokens(other, [1], 0, 1));
  const index = new PrefixIndex();
  index.add(parent, [1], 0, 1, 5);
  expect(index.find(other, [1], 0, 1)).toBeNull();
  expect(index.find(parent, [1], 0, 1)?.page).toBe(5);
});

it("tokens confirm a hash: of two contents of one hash only the later is known", () => {
  // Two successors of the root whose FNV-1a words collide, found by search over pairs of words.
  const words = collidingPair();
  expect(hashTokens(PREFIX_ROOT, words[0], 0, 2)).toBe(hashTokens(PREFIX_ROOT, words[1], 0, 2));
  const index = new PrefixIndex();
  index.add(PREFIX_ROOT, words[0], 0, 2, 5);
  expect(index.find(PREFIX_ROOT, words[1], 0, 2)).toBeNull();
  index.add(PREFIX_ROOT, words[1], 0, 2, 6);
  expect(index.find(PREFIX_ROOT, words[0], 0, 2)).toBeNull();
  expect([...index.pages()]).toEqual([6]);
});

function collidingPair(): [number[], number[]] {
  const seen = new Map<number, number[]>();
  for (let i = 0; ; i++) {
    const words = [i % 1024, Math.floor(i / 1024)];
    const other = seen.get(hashTokens(PREFIX_ROOT, words, 0, 2));
    if (other !== undefined) return [other, words];
    seen.set(hashTokens(PREFIX_ROOT, words, 0, 2), words);
  }
}
