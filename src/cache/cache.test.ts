import { expect, it } from "vitest";
import { openDevice } from "../device/open.ts";
import { cacheEntryBytes, cacheTokenBytes, LatentCachePool, pagesThatFit } from "./latent-cache-pool.ts";
import { PageAllocator } from "./page-allocator.ts";
import { PagedLatentCache } from "./paged-latent-cache.ts";

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
  expect(() => allocator.release(3)).toThrow(RangeError);
  expect(allocator.usedPages).toBe(1);
});

it("pages=4: pages freed early come first, those freed late last, and a free one can be taken out", () => {
  const allocator = new PageAllocator(4);
  for (const page of allocator.allocate(4)!) allocator.release(page, page < 2 ? "late" : "soon");
  allocator.retain(1);
  expect([allocator.freePages, allocator.references(1)]).toEqual([3, 1]);
  expect(allocator.allocate(3)).toEqual([3, 2, 0]);
  expect(allocator.allocate(1)).toBeNull();
});

it("pageSize=4: freed and misused sequences are refused, rows end in −1", () => {
  const cache = new PagedLatentCache(4, 4);
  const sequence = cache.create();
  cache.reserve(sequence, 8);
  expect(() => cache.append(sequence, 9, new Int32Array(9))).toThrow("tokens");
  const table = new Int32Array(5).fill(99);
  cache.writeBlockTable(sequence, table, 1, 3);
  expect([...table]).toEqual([99, 0, 1, -1, 99]);
  expect(() => cache.writeBlockTable(sequence, table, 0, 1)).toThrow("maxPages");
  cache.free(sequence);
  expect(() => cache.free(sequence)).toThrow("freed");
});

it("bytes per token: DeepSeek-V3 takes 576 values a layer, or the 656-byte fp8 entry", () => {
  const shape = { dtype: "bf16", kvLoraRank: 512, qkRopeHeadDim: 64, layers: 61, pageSize: 64 } as const;
  expect(cacheEntryBytes(shape)).toBe(1152);
  expect(cacheTokenBytes(shape)).toBe(70272);
  expect(cacheTokenBytes({ ...shape, dtype: "fp8" })).toBe(656 * 61);
  expect(cacheEntryBytes({ ...shape, dtype: "fp8", kvLoraRank: 256, qkRopeHeadDim: 32 })).toBe(256 + 8 + 64);
  expect(() => cacheEntryBytes({ ...shape, dtype: "fp8", kvLoraRank: 200 })).toThrow("multiple of 128");
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
