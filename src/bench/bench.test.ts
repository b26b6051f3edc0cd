import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open.ts";
import { type BenchCase, worstErrorOf } from "./case.ts";
import { decodeCase } from "./cases/decode.ts";
import { epilogueCase } from "./cases/epilogue.ts";
import { gatedMlpCase, linearCase } from "./cases/matrices.ts";
import { prefillCase } from "./cases/prefill.ts";
import { prologueCase } from "./cases/prologue.ts";
import { deepseekLayer } from "./cases/widths.ts";
import { machineSlug } from "./machine.ts";
import { createReport, tableOf, threeDigits, writeReport } from "./report.ts";
import { type CaseResult, callsFor, median, runBench } from "./run.ts";

const layer = { ...deepseekLayer, heads: 2, latentWidth: 128, ropeWidth: 32, nopeWidth: 16, valueWidth: 24 };
const cases: BenchCase[] = [
  decodeCase({ heads: 3, latentWidth: 128, ropeWidth: 32, length: 70, dtype: "f16" }),
  decodeCase({ heads: 2, latentWidth: 512, ropeWidth: 64, length: 300, dtype: "fp8" }),
  prologueCase({ ...layer, rows: 3 }),
  epilogueCase({ ...layer, length: 600 }),
  prefillCase({ ...layer, rows: 9, length: 80, cacheDtype: "bf16" }),
  linearCase({ rows: 3, inputs: 16, outputs: 24, dtype: "bf16" }),
  gatedMlpCase({ rows: 2, hidden: 16, intermediate: 24, dtype: "f32" }),
];

describe("runBench", () => {
  let devices: Device[];
  beforeAll(async () => {
    devices = [await openDevice({ kind: "cpu", threads: 1 }), await openDevice({ kind: "cpu", threads: 2 })];
  });
  afterAll(() => Promise.all(devices.map((device) => device.close())));

  it("every case at small shapes: right on 1 and 2 threads, rates from one time, memory given back", async () => {
    const names: string[] = [];
    const { results, ceilings } = await runBench({
      ...{ cases, devices, rounds: 1 },
      onCase: (name) => names.push(name),
    });
    expect(names).toEqual(cases.map(({ name }) => name));
    expect(results.map(({ threads }) => threads)).toEqual(cases.flatMap(() => [1, 2]));
    for (const [i, result] of results.entries()) {
      const { cost } = cases[i >> 1]!;
      expect(result.gflops * result.bestMilliseconds * 1e6).toBeCloseTo(cost.flops, -1);
      expect(result.gigabytesPerSecond / result.gflops).toBeCloseTo(cost.bytes / cost.flops, 5);
      const { ceiling, bound } = result;
      const [rate, most] =
        bound === "compute"
          ? [result.gflops, ceiling.gflops]
          : [result.gigabytesPerSecond, ceiling.gigabytesPerSecond];
      expect(result.fraction).toBeCloseTo(rate / most, 8);
    }
    for (const ceiling of ceilings) expect(ceiling.gflops * ceiling.gigabytesPerSecond).toBeGreaterThan(0);
    expect(devices.map((device) => device.memory.usedBytes)).toEqual([0, 0]);
  });

  it("a case with wrong results is not timed", async () => {
    const good = cases[5]!;
    const wrong: BenchCase = {
      ...good,
      prepare: (...args) => ({ ...good.prepare(...args), worstError: async () => Number.NaN }),
    };
    await expect(runBench({ cases: [wrong], devices, rounds: 1 })).rejects.toThrow(/m=3.*not timed.*NaN/);
  });
});

describe("figures", () => {
  it("median: middle of odd counts, mean of the two of even ones", () => {
    expect([median([3, 1, 2]), median([4, 1, 3, 2]), median([])]).toEqual([2, 2.5, Number.NaN]);
  });

  it("calls: copies enough to leave the caches, rounds short, one call where it is long", () => {
    expect(callsFor({ flops: 1e6, bytes: 32 * 2 ** 20 })).toEqual({ copies: 3, perRound: 3 });
    expect(callsFor({ flops: 1.5e8, bytes: 5 * 2 ** 20 })).toEqual({ copies: 20, perRound: 1 });
    expect(callsFor({ flops: 1e10, bytes: 1024 })).toEqual({ copies: 1, perRound: 1 });
    expect(callsFor({ flops: 1, bytes: 1 })).toEqual({ copies: 64, perRound: 64 });
  });

  it("worst error: relative over 1, absolute under, NaN wins", () => {
    expect(worstErrorOf([101, 0.5], [100, 0.25])).toBe(0.25);
    expect(worstErrorOf([1, Number.NaN, 1], [1, 1, 3])).toBeNaN();
  });

  it.each([
    ["AMD EPYC family 25 model 1", 2, "amd-epyc-family-25-model-1-x2"],
    ["Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", 8, "intel-xeon-platinum-8481c-x8"],
    ["AMD Ryzen 9 7950X 16-Core Processor", 32, "amd-ryzen-9-7950x-x32"],
    ["Apple M3 Max", 16, "apple-m3-max-x16"],
    ["…", 1, "unknown-x1"],
  ])("machine %s ×%i: %s", (cpu, processors, slug) => {
    expect(machineSlug(cpu, processors)).toBe(slug);
  });
});

describe("report", () => {
  const result: CaseResult = {
    ...{ name: "linear", threads: 2, milliseconds: 0.0625, gflops: 41.27, gigabytesPerSecond: 0.5 },
    bound: "compute",
    bestMilliseconds: 0.0425,
    ...{ fraction: 0.806, ceiling: { gflops: 51.2, gigabytesPerSecond: 20 }, worstError: 3.1e-7 },
  };

  it("a row reads like a measurement", () => {
    const row = ["linear", "2", "62.5 µs", "42.5 µs", "41.3", "0.50", "81 %", "compute", "3.1e-7"];
    expect(tableOf([result])[1]).toEqual(row);
    expect([0.123, 12.34, 123.4].map(threeDigits)).toEqual(["0.12", "12.3", "123"]);
  });

  it("is written under its machine, date and name", async () => {
    const folder = mkdtempSync(join(tmpdir(), "flashmla-bench-"));
    const measured = { name: "x", features: [], rounds: 1, ceilings: [], results: [result] };
    const report = createReport(measured, "1.2.3");
    const path = await writeReport(report, folder);
    expect(path).toBe(join(folder, report.machine.slug, `${report.date.slice(0, 10)}-x.json`));
    expect(JSON.parse(readFileSync(path, "utf8"))).toEqual(report);
    rmSync(folder, { recursive: true });
  });
});
