import { expect, it } from "vitest";
import { createRandom } from "../../../base/random.ts";
import { latentEntryBytes } from "../latent-cache.ts";
import { createPagedCache } from "./paged-cache.ts";
import { createNoise } from "./stored.ts";

const widths = { latentWidth: 512, ropeWidth: 64 };

it.each([
  [[5, 0, 70], 64, "fp8"],
  [[16, 33], 16, "bf16"],
  [[3000, 2000, 5], 16, "f32"],
] as const)(
  "lengths %j, pages of %i, %s: live slots hold values, all others NaN bytes",
  (lengths, pageSize, dtype) => {
    const random = createRandom(3);
    const noise = createNoise(random, 1);
    const cache = createPagedCache(random, { ...widths, lengths, pageSize, dtype, noise });
    const entryBytes = latentEntryBytes(dtype, widths);
    const slots = cache.bytes.length / entryBytes;
    const live = new Set<number>();
    const unused: number[] = [];
    lengths.forEach((length, b) => {
      const table = cache.blockTable.subarray(b * cache.maxPages, (b + 1) * cache.maxPages);
      unused.push(...table.subarray(Math.ceil(length / pageSize)));
      for (let t = 0; t < length; t++) live.add(table[Math.floor(t / pageSize)]! * pageSize + (t % pageSize));
    });
    for (let slot = 0; slot < slots; slot++) {
      const bytes = cache.bytes.subarray(slot * entryBytes, (slot + 1) * entryBytes);
      if (live.has(slot)) expect(cache.entry(slot).every(Number.isFinite), `slot ${slot}`).toBe(true);
      else
        expect(
          bytes.every((byte) => byte === 0xff),
          `slot ${slot}`,
        ).toBe(true);
    }
    expect(unused.some((page) => live.has(page * pageSize))).toBe(false);
    expect(unused).toContain(2147480000);
    expect(cache.maxLen).toBe(Math.max(...lengths));
  },
);

it("a partly filled last page belongs to one sequence alone", () => {
  const random = createRandom(4);
  const noise = createNoise(random, 1);
  const lengths = Array.from({ length: 20 }, (_, b) => 640 + b);
  const cache = createPagedCache(random, { ...widths, lengths, pageSize: 64, dtype: "bf16", noise });
  const last = lengths.slice(1).map((_, b) => cache.blockTable[(b + 1) * cache.maxPages + 10]!);
  expect(new Set(last).size).toBe(19);
  const full = new Set(
    lengths.flatMap((_, b) => [...cache.blockTable.subarray(b * cache.maxPages, b * cache.maxPages + 10)]),
  );
  expect(last.some((page) => full.has(page))).toBe(false);
});
