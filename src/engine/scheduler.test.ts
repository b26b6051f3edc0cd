import { expect, it } from "vitest";
import { FakeRunner } from "../../tests/fixtures/fake-runner.ts";
import { createRandom } from "../base/random.ts";
import { type DrawRules, decodeCall, prefillChunk, splitDraws } from "./run-plan.ts";
import { Scheduler, type SchedulerOptions } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import type { StepPlan } from "./step-plan.ts";

const greedy: DrawRules = {
  sampling: (_, step) => ({ temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, step }),
  adjust: () => null,
};

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

/** A scheduler, a runner that checks what it is given, and the sequences at hand. */
class Bench {
  readonly options: SchedulerOptions;
  readonly scheduler: Scheduler;
  readonly runner: FakeRunner;
  readonly live = new Set<Sequence>();
  ended = 0;
  #arrivals = 0;

  constructor(options: SchedulerOptions, maxContext = 48) {
    this.options = options;
    this.scheduler = new Scheduler(options);
    this.runner = new FakeRunner({ ...options, maxContext, vocabSize: 3 });
  }

  add(
    promptIds: number[],
    outputTokens: number,
    more: { priority?: number; client?: string } = {},
  ): Sequence {
    const sequence = new Sequence({
      promptIds,
      maxLength: promptIds.length + outputTokens,
      priority: more.priority ?? 0,
      client: more.client ?? "",
      order: this.#arrivals++,
      mayDraft: true,
    });
    this.live.add(sequence);
    this.scheduler.add(sequence);
    return sequence;
  }

  remove(sequence: Sequence): void {
    this.live.delete(sequence);
    this.scheduler.remove(sequence);
  }

  /** One step; the plan that was run. */
  step(): StepPlan {
    const plan = this.scheduler.schedule();
    for (const { from, to } of plan.copies) this.runner.copyPage(from, to);
    const { rows } = decodeCall(plan.decodes, greedy);
    const decodes = splitDraws(plan.decodes, rows.length === 0 ? [] : this.runner.decodeNow(rows));
    const prefills = plan.prefills.map((work) => this.runner.prefillNow(prefillChunk(work, greedy)));
    for (const { sequence, tokenIds } of this.scheduler.settle(plan, { decodes, prefills })) {
      for (const tokenId of tokenIds) this.#append(sequence, tokenId);
    }
    return plan;
  }

  #append(sequence: Sequence, tokenId: number): void {
    if (sequence.status === "ended") throw new Error("a token for a sequence that ended");
    sequence.tokens.push(tokenId);
    if (sequence.tokens.length < sequence.maxLength) return;
    const { promptIds, outputLength } = sequence;
    const expected = [...promptIds, ...this.runner.alone(promptIds, outputLength)];
    if (sequence.tokens.join() !== expected.join()) {
      throw new Error(`prompt ${promptIds.join()} gave ${sequence.tokens.join()}, alone ${expected.join()}`);
    }
    this.ended++;
    this.remove(sequence);
  }

  /** Every page is referenced by exactly the block tables that name it, and free when none does. */
  expectPagesCounted(): void {
    const { allocator } = this.scheduler.cache;
    const counts = new Int32Array(allocator.pageCount);
    for (const { cached } of this.live) for (const page of cached?.pages ?? []) counts[page]!++;
    let used = 0;
    counts.forEach((count, page) => {
      if (count > 0) used++;
      if (allocator.references(page) !== count) throw new Error(`page ${page} is counted wrongly`);
    });
    if (allocator.usedPages !== used) throw new Error(`${allocator.usedPages} pages in use, not ${used}`);
  }
}

/** Requests that share beginnings come, stall, are cancelled and end, at random. */
function randomLoad(bench: Bench, seed: number, steps: number): void {
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
  "pages=20 pageSize=4, 125,000 random steps, %s: each request as alone, no page lost",
  (_name, changed) => {
    const bench = new Bench({ ...sizes, ...changed });
    randomLoad(bench, 7, 125_000);
    const { counts, cache } = bench.scheduler;
    expect(counts).toMatchObject({ running: 0, waiting: 0, paused: 0 });
    expect(cache.allocator.usedPages).toBe(0);
    expect(bench.ended).toBeGreaterThan(10_000);
    expect(counts.preemptions).toBeGreaterThan(50);
    if (bench.options.draftTokens > 0) expect(counts.acceptedTokens).toBeGreaterThan(10_000);
  },
);
