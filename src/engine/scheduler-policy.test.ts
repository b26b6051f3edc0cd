import { describe, expect, it } from "vitest";
import { SchedulerBench } from "../../tests/fixtures/scheduler-bench.ts";
import type { SchedulerOptions } from "./scheduler.ts";
import type { StepPlan } from "./step-plan.ts";

const sizes: SchedulerOptions = {
  pageCount: 16,
  pageSize: 4,
  maxDecodeRows: 8,
  maxChunkTokens: 8,
  maxPrefillTokens: 8,
  maxRunning: 4,
  draftTokens: 0,
  prefixReuse: true,
};
const bench = (changed: Partial<SchedulerOptions> = {}) => new SchedulerBench({ ...sizes, ...changed }, 64);
const ids = (count: number, first = 0) => Array.from({ length: count }, (_, i) => (first + i * i) % 3);
const shape = ({ decodes, prefills, copies }: StepPlan) => ({
  rows: decodes.map(({ tokenIds }) => tokenIds.length),
  chunks: prefills.map(({ tokenIds }) => tokenIds.length),
  copies: copies.length,
});

describe("a step", () => {
  it("mixes decode rows with chunks of prompts, within the tokens of a step", () => {
    const { step, add } = bound(bench({ prefixReuse: false }));
    add(ids(3), 9);
    add(ids(12), 9);
    expect(shape(step())).toEqual({ rows: [], chunks: [3, 5], copies: 0 });
    expect(shape(step())).toEqual({ rows: [1], chunks: [7], copies: 0 });
    expect(shape(step())).toEqual({ rows: [1, 1], chunks: [], copies: 0 });
  });

  it("prompts with the same beginning: one computes it, the others wait a step and take it over", () => {
    const { step, add } = bound(bench());
    for (const last of [0, 1, 2]) add([...ids(6), last, last], 9);
    expect(shape(step())).toEqual({ rows: [], chunks: [8], copies: 0 });
    expect(shape(step())).toEqual({ rows: [1], chunks: [2, 2], copies: 2 });
  });

  it("nothing to do: an empty plan", () => {
    expect(shape(bench().step())).toEqual({ rows: [], chunks: [], copies: 0 });
  });
});

describe("when pages run out", () => {
  it("the last arrival gives way, and computes its output again by decode rows", () => {
    const { step, add, bench: own } = bound(bench({ pageCount: 8, prefixReuse: false, maxDecodeRows: 5 }));
    const first = add(ids(8), 22);
    const second = add(ids(8, 1), 22);
    while (second.preemptions === 0) step();
    expect(first.preemptions).toBe(0);
    expect([second.status, second.computed]).toEqual(["waiting", 0]);
    const output = second.outputLength;
    expect(output).toBeGreaterThan(5);
    while (first.status !== "ended") step();
    expect(shape(step())).toEqual({ rows: [], chunks: [8], copies: 0 });
    expect(shape(step()).rows).toEqual([5]);
    while (own.live.size > 0) step();
  });

  it("those whose output nobody reads give way first", () => {
    const { step, add } = bound(bench({ pageCount: 8, prefixReuse: false }));
    const unread = add(ids(4), 20);
    const other = add(ids(4, 1), 27);
    step();
    unread.held = true;
    while (unread.preemptions === 0) step();
    expect([unread.status, unread.computed, other.preemptions]).toEqual(["paused", 0, 0]);
    unread.held = false;
    while (unread.status !== "ended") step();
  });

  it("a sequence that joins others leaves them a page to grow", () => {
    const { step, add } = bound(bench({ pageCount: 4, prefixReuse: false }));
    add(ids(4), 8);
    step();
    const next = add(ids(12), 4);
    step();
    expect(next.status).toBe("waiting");
  });
});

describe("who comes first", () => {
  it("a more urgent request displaces the least urgent one when seats or pages are taken", () => {
    for (const changed of [{ maxRunning: 2 }, { pageCount: 8 }]) {
      const { step, add } = bound(bench(changed));
      const sequences = [1, 2].map((priority) => add(ids(12, priority), 9, { priority }));
      for (let i = 0; i < 4; i++) step();
      expect(sequences.map(({ status }) => status)).toEqual(["running", "running"]);
      const urgent = add(ids(4), 9, { priority: 0 });
      const equal = add(ids(16), 9, { priority: 1 });
      step();
      expect([...sequences, urgent, equal].map(({ status }) => status)).toEqual([
        "running",
        "waiting",
        "running",
        "waiting",
      ]);
    }
  });

  it("clients share the batch alike, whatever their number of requests", () => {
    const {
      step,
      add,
      bench: own,
    } = bound(bench({ maxRunning: 1, maxPrefillTokens: 16, maxChunkTokens: 16 }));
    const many = Array.from({ length: 8 }, (_, i) => add(ids(6, i), 6, { client: "many" }));
    const few = Array.from({ length: 3 }, (_, i) => add(ids(6, i), 6, { client: "few" }));
    while (few.some(({ status }) => status !== "ended")) step();
    expect(many.filter(({ status }) => status === "ended")).toHaveLength(3);
    while (own.live.size > 0) step();
  });
});

describe("guesses", () => {
  it("take rows that are left, never past the end of the output, and never a page from others", () => {
    const { step, add } = bound(bench({ draftTokens: 4, maxDecodeRows: 5, maxRunning: 2 }));
    const sequences = [add([1, 2, 1, 2, 1, 2], 12), add([2, 1, 2, 1, 2, 1], 3)];
    while (sequences.some(({ status }) => status !== "ended")) {
      const { decodes } = step();
      expect(decodes.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0)).toBeLessThanOrEqual(5);
      for (const { sequence, position, tokenIds } of decodes) {
        expect(position + tokenIds.length).toBeLessThan(sequence.maxLength);
      }
    }
    expect(sequences.every(({ preemptions }) => preemptions === 0)).toBe(true);
  });
});

function bound(own: SchedulerBench) {
  return { bench: own, step: () => own.step(), add: own.add.bind(own) };
}
