import { expect, it } from "vitest";
import { createRandom } from "../base/random.ts";
import { openDevice } from "../device/open.ts";
import { cacheEntryBytes, cacheTokenBytes, LatentCachePool, pagesThatFit } from "./latent-cache-pool.ts";
import { PageAllocator } from "./page-allocator.ts";
import { type CachedSequence, PagedLatentCache } from "./paged-latent-cache.ts";

it("pages=3: all or nothing, shared until the last release, never freed twice", () => {
  const allocator = new PageAllocator(3);
  const pages = allocator.allocate(2)!;
  expect(pages).toEqual([0, 1]);
  expect(allocator.allocate(2)).toBeNull();
  expect(allocator.freePages).toBe(1);
  allocator.retain(0);
  allocator.release(0);
  expect(allocator.references(0)).toBe(1);
  allocator.release(0);
  expect(() => allocator.release(0)).toThrow("free page 0");
  expect(() => allocator.retain(0)).toThrow("free page 0");
  expect(() => allocator.release(3)).toThrow(RangeError);
  expect(allocator.usedPages).toBe(1);
});

interface Tracked {
  sequence: CachedSequence;
  slots: number[];
}

function expectConsistent(cache: PagedLatentCache, live: readonly Tracked[]): void {
  const counts = new Map<number, number>();
  for (const { sequence, slots } of live) {
    expect(sequence.length).toBe(slots.length);
    for (const page of sequence.pages) counts.set(page, (counts.get(page) ?? 0) + 1);
    slots.forEach((slot, position) => {
      const page = sequence.pages[Math.floor(position / cache.pageSize)]!;
      if (slot !== page * cache.pageSize + (position % cache.pageSize)) throw new Error(`slot ${slot} moved`);
    });
  }
  for (let page = 0; page < cache.allocator.pageCount; page++) {
    expect(cache.allocator.references(page)).toBe(counts.get(page) ?? 0);
  }
  expect(cache.allocator.usedPages).toBe(counts.size);
}

it.each([1, 2, 3])(
  "pages=24 pageSize=4, 600 random steps of seed %i: no page lost or shared wrongly",
  (seed) => {
    const random = createRandom(seed);
    const below = (limit: number) => Math.floor(random.uniform() * limit);
    const cache = new PagedLatentCache(24, 4);
    const live: Tracked[] = [];
    for (let step = 0; step < 600; step++) {
      const action = below(6);
      const chosen = live[below(live.length)];
      if (chosen === undefined || (action === 0 && live.length < 8)) {
        live.push({ sequence: cache.create(), slots: [] });
      } else if (action === 1) {
        cache.free(live.splice(live.indexOf(chosen), 1)[0]!.sequence);
      } else if (action === 2) {
        const length = below(chosen.slots.length + 1);
        const whole = length - (length % 4);
        live.push({ sequence: cache.fork(chosen.sequence, whole), slots: chosen.slots.slice(0, whole) });
      } else if (action === 3) {
        chosen.slots.length -= chosen.slots.length % 4;
        cache.truncate(chosen.sequence, chosen.slots.length);
      } else {
        const tokens = below(11);
        const fits = cache.pagesNeeded(chosen.sequence, tokens) <= cache.allocator.freePages;
        expect(cache.reserve(chosen.sequence, tokens)).toBe(fits);
        const slots = new Int32Array(tokens);
        if (fits) cache.append(chosen.sequence, tokens, slots);
        if (fits) chosen.slots.push(...slots);
      }
      expectConsistent(cache, live);
    }
    for (const { sequence } of live) cache.free(sequence);
    expect(cache.allocator.freePages).toBe(24);
  },
);

it("pageSize=4: a shared page is not written, a freed sequence not used, rows end in −1", () => {
  const cache = new PagedLatentCache(4, 4);
  const parent = cache.create();
  cache.reserve(parent, 8);
  cache.append(parent, 8, new Int32Array(8));
  const child = cache.fork(parent, 8);
  cache.truncate(parent, 6);
  expect(() => cache.append(parent, 1, new Int32Array(1))).toThrow("page 1 is shared");
  expect(() => cache.fork(child, 6)).toThrow("multiple of 4");
  expect(() => cache.append(child, 1, new Int32Array(1))).toThrow("tokens");
  const table = new Int32Array(5).fill(99);
  cache.writeBlockTable(child, table, 1, 3);
  expect([...table]).toEqual([99, 0, 1, -1, 99]);
  expect(() => cache.writeBlockTable(child, table, 0, 1)).toThrow("maxPages");
  cache.free(child);
  expect(() => cache.free(child)).toThrow("freed");
});

it("bytes per token: DeepSeek-V3 takes 576 values a layer, or the 656-byte fp8 entry", () => {
  const shape = { dtype: "bf16", kvLoraRank: 512, qkRopeHeadDim: 64, layers: 61, pageSize: 64 } as const;
  expect(cacheEntryBytes(shape)).toBe(1152);
  expect(cacheTokenBytes(shape)).toBe(70272);
  expect(cacheTokenBytes({ ...shape, dtype: "fp8" })).toBe(656 * 61);
  expect(() => cacheEntryBytes({ ...shape, dtype: "fp8", kvLoraRank: 256 })).toThrow("512 + 64");
  expect(pagesThatFit(shape, 10 * 64 * 70272)).toBe(10);
  expect(pagesThatFit(shape, 10 * 64 * 70272 - 1)).toBe(9);
});

it("layers=3 pages=5: layers do not overlap, and the pool's memory comes back", async () => {
  const device = await openDevice({ kind: "cpu", threads: 1, poison: true });
  const shape = { dtype: "f32", kvLoraRank: 9, qkRopeHeadDim: 2, layers: 3, pageSize: 3 } as const;
  const pool = new LatentCachePool(device, shape, 5);
  expect(pool.layer(0).bytes).toBe(5 * 3 * 11 * 4);
  expect(pool.layerBytes).toBe(768);
  for (let layer = 0; layer < 3; layer++) {
    device.write(pool.layer(layer), new Float32Array(165).fill(layer));
  }
  for (let layer = 0; layer < 3; layer++) {
    const held = new Float32Array(await device.read(pool.layer(layer), 0, 660));
    expect(held.every((value) => value === layer)).toBe(true);
  }
  expect(() => pool.layer(3)).toThrow("index");
  pool.free();
  expect(device.memory.usedBytes).toBe(0);
  await device.close();
});
