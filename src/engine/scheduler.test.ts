import { expect, it } from "vitest";
import { SchedulerBench } from "../../tests/fixtures/scheduler-bench.ts";
import { createRandom } from "../base/random.ts";
import type { SchedulerOptions } from "./scheduler.ts";

const sizes = {
  pageCount: 20,
  pageSize: 4,
  maxDecodeRows: 7,
  maxChunkTokens: 6,
  maxPrefillTokens: 9,
  maxRunning: 5,
  draftTokens: 3,
  prefixReuse: true,
} satisfies SchedulerOptions;

/** Requests that share beginnings come, stall, are cancelled and end, at random. */
function randomLoad(bench: SchedulerBench, seed: number, steps: number): void {
  const random = createRandom(seed);
  const below = (limit: number) => random.integer(limit);
  for (let step = 0; step < steps; step++) {
    if (bench.live.size < 12 && below(2) === 0) {
      const shared = Array.from({ length: below(14) }, (_, i) => (i * i) % 3);
      const own = Array.from({ length: 1 + below(10) }, () => below(3));
      const copies = below(6) === 0 ? 3 : 1;
      const more = { priority: below(3), client: `client ${below(3)}` };
      for (let i = 0; i < copies; i++) bench.add([...shared, ...own], 1 + below(24), more);
    }
    const victim = below(24) === 0 ? [...bench.live][below(bench.live.size)] : undefined;
    if (victim !== undefined && below(2) === 0) bench.remove(victim);
    else if (victim !== undefined) victim.held = !victim.held;
    bench.step();
    if (step % 8 === 0) bench.expectPagesCounted();
  }
  for (const sequence of bench.live) sequence.held = false;
  for (let step = 0; bench.live.size > 0; step++) {
    if (step > 5000) throw new Error(`${bench.live.size} sequences never end`);
    bench.step();
  }
}

/** Steps of each variant; CI takes more, 2.4 million in all. */
const STEPS = Number(process.env.FLASHMLA_RANDOM_STEPS ?? 125_000);

const variants: Record<string, Partial<SchedulerOptions>> = {
  "reuse and drafts": {},
  "reuse without drafts": { draftTokens: 0 },
  "drafts without reuse": { prefixReuse: false },
  "one sequence at a time": { maxRunning: 1 },
  "chunks of one token": { maxChunkTokens: 1, maxPrefillTokens: 1 },
  "pages of one token": { pageSize: 1, pageCount: 64 },
  "barely enough pages": { pageCount: 12 },
  "plenty of pages": { pageCount: 200, maxDecodeRows: 16, maxRunning: 12 },
};

it.each(Object.entries(variants))(
  `pages=20 pageSize=4, ${STEPS} random steps, %s: each request as alone, no page lost`,
  (_name, changed) => {
    const bench = new SchedulerBench({ ...sizes, ...changed });
    randomLoad(bench, 7, STEPS);
    const { counts, cache } = bench.scheduler;
    expect(counts).toMatchObject({ running: 0, waiting: 0, paused: 0 });
    expect(cache.allocator.usedPages).toBe(0);
    expect(bench.ended).toBeGreaterThan(10_000);
    expect(counts.preemptions).toBeGreaterThan(50);
    if (bench.options.draftTokens > 0) expect(counts.acceptedTokens).toBeGreaterThan(10_000);
  },
  180_000,
);
