import { describe, expect, it } from "vitest";
import { createRandom } from "../../base/random.ts";
import { RangeAllocator } from "./allocator.ts";

describe("RangeAllocator", () => {
  it("4,000 random steps: ranges never overlap, nothing is lost, all free again at the end", () => {
    const random = createRandom(7);
    const allocator = new RangeAllocator(100, 100_000, 256);
    const live = new Map<number, number>();
    for (let step = 0; step < 4_000; step++) {
      if (random.uniform() < 0.55) {
        const bytes = Math.floor(random.uniform() * 5000);
        const start = allocator.allocate(bytes);
        if (start === null) continue;
        expect(start % 256).toBe(0);
        expect(start + bytes).toBeLessThanOrEqual(100_000);
        for (const [other, size] of live) expect(start >= other + size || start + bytes <= other).toBe(true);
        live.set(start, Math.max(1, bytes));
      } else {
        const [start] = live.keys();
        if (start === undefined) continue;
        allocator.release(start);
        live.delete(start);
      }
    }
    for (const start of live.keys()) allocator.release(start);
    expect(allocator.usedBytes).toBe(0);
    expect(allocator.largestFree).toBe(allocator.capacity);
    expect(() => allocator.release(256)).toThrow(RangeError);
  });
});
