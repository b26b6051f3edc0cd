import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { changedDevice } from "../../../tests/fixtures/changed-device.ts";
import { testDevicesOf } from "../../../tests/fixtures/devices.ts";
import { decodeToF32 } from "../../base/convert.ts";
import { UserError } from "../../base/errors.ts";
import { decodeFp8Entry } from "../../base/fp8-entry.ts";
import type { Device, DeviceBuffer } from "../../device/device.ts";
import { openDevice } from "../../device/open.ts";
import type { Chart } from "../../report/chart.ts";
import { renderPage } from "../../report/page.ts";
import { bestCeilings, openCeilings } from "../device-ceilings.ts";
import { createDeviceReport, createReport } from "../report.ts";
import { CompareArena } from "./arena.ts";
import { breakEven, breakEvens, describeBreakEven } from "./break-even.ts";
import { claimArithmetic, claimVerdicts, publishedClaims } from "./claims.ts";
import { makeDecoder, recordDecoder } from "./decoder.ts";
import { findings } from "./findings.ts";
import { comparePage } from "./page.ts";
import { claimsTable, ownFigures, ownTable } from "./published-tables.ts";
import type { CompareOutcome, CompareRow, MeasuredOutcome } from "./rows.ts";
import { runCompare } from "./run.ts";
import {
  attentionParameters,
  type CompareFormId,
  cacheBytesPerToken,
  compareForms,
  compareShapes,
  intermediateOf,
  modelParameters,
} from "./shapes.ts";
import { missingSentences, rowsTable, timesTable, tuningTable } from "./tables.ts";
import { medianShares, tuningShares } from "./tuning.ts";

const tiny = compareShapes.tiny!;
const [standard, flash, wide, narrow, fp8] = compareForms;

const measured = (milliseconds: number): CompareOutcome => ({
  ...{ status: "measured", milliseconds, tokensPerSecond: 1000 / milliseconds, peakBytes: 5e8, runs: 3 },
});

function row(form: CompareFormId, context: number, outcome: CompareOutcome, batch = 1): CompareRow {
  const cacheBytes = context * (form === "flash" || form === "standard" ? 8192 : 1152);
  return { scope: "model", form, context, batch, cacheBytes, outcome };
}

describe("shapes", () => {
  it("7b over full heads has the 6.74 billion parameters of the model it is named for", () => {
    expect(modelParameters(compareShapes["7b"]!, standard!)).toBe(6_738_149_376);
  });

  it.each(Object.values(compareShapes))("$name: every row is as large as the full one", (shape) => {
    for (const form of compareForms) {
      const ratio = modelParameters(shape, form) / modelParameters(shape, flash!);
      expect(Math.abs(ratio - 1)).toBeLessThan(shape === tiny ? 2e-3 : 1e-3);
      expect(intermediateOf(shape, form) % 8).toBe(0);
    }
  });

  it("latent projections by hand: h=2, width 16, d_r 4, d_c 256, hidden 8", () => {
    const shape = { ...tiny, heads: 2, headWidth: 16, ropeWidth: 4, hidden: 8 };
    expect(attentionParameters(shape, narrow!)).toBe(8 * 2 * 20 + 8 * 260 + 256 * 64 + 32 * 8);
    expect(attentionParameters(shape, flash!)).toBe(4 * 8 * 32);
  });

  it("cache bytes a token and layer: 16384, 1152, 640 and 656 for the shape of the claims", () => {
    const bytes = compareForms.map((form) => cacheBytesPerToken(compareShapes["7b"]!, form));
    expect(bytes).toEqual([16384, 16384, 1152, 640, 656]);
  });
});

describe("CompareArena", () => {
  it.each(["cpu", "webgpu"] as const)(
    "%s: finite numbers of the wanted size, bf16 and fp8 entries",
    async (kind) => {
      const cpu = await openDevice({ kind: "cpu", threads: 1, poison: true });
      const arena = new CompareArena(changedDevice(cpu, { kind }));
      const bytesOf = async (buffer: DeviceBuffer) => new Uint8Array(await cpu.read(buffer, 0, buffer.bytes));
      const spread = (values: Float32Array) => Math.hypot(...values) / Math.sqrt(values.length);
      const floats = decodeToF32(await bytesOf(arena.floats("f", 40_000, 2)), "f32");
      expect(spread(floats)).toBeCloseTo(2, 1);
      const { buffer } = arena.matrix("m", 1000, 64);
      expect(spread(decodeToF32(await bytesOf(buffer), "bf16"))).toBeCloseTo(1 / 8, 2);
      const cache = await bytesOf(arena.latentCache(700, 328, "fp8", [256, 32]));
      for (const entry of [0, 511, 512, 699]) {
        const widths = { latentWidth: 256, ropeWidth: 32 };
        const values = decodeFp8Entry(cache.subarray(entry * 328, (entry + 1) * 328), widths);
        expect(values.every(Number.isFinite)).toBe(true);
        for (const part of [values.subarray(0, 256), values.subarray(256)]) {
          expect(new Set(part).size).toBeGreaterThan(10);
        }
      }
      arena.free();
      await cpu.close();
    },
  );
});

describe.each(testDevicesOf("webgpu"))("on $name", ({ open }) => {
  it("random fills are the CPU's, to the bit; ceilings are measured", async () => {
    const devices = [await openDevice({ kind: "cpu", threads: 1 }), await open()];
    const found = await Promise.all(
      devices.map(async (device) => {
        const arena = new CompareArena(device);
        const buffers = [arena.floats("f", 70_000, 2), arena.matrix("m", 1000, 96).buffer];
        const read = await Promise.all(buffers.map((buffer) => device.read(buffer, 0, buffer.bytes)));
        arena.free();
        return read.map((bytes) => Buffer.from(bytes).toString("base64"));
      }),
    );
    expect(found[1]).toEqual(found[0]);
    const source = (await openCeilings(devices[1]!))!;
    expect(source.measure().bytesPerSecond).toBeGreaterThan(1e7);
    expect(source.measure().flopsPerSecond).toBeGreaterThan(1e7);
    source.free();
    for (const device of devices) await device.close();
  });
});

describe("runCompare", () => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice({ kind: "cpu", threads: 2, poison: true });
  });
  afterAll(() => device.close());

  async function logitsOf(form: (typeof compareForms)[number]): Promise<Float32Array> {
    const arena = new CompareArena(device);
    const cell = { batch: 2, context: 70 };
    const decoder = makeDecoder(arena, tiny, form, cell);
    const program = device.record((launch) => recordDecoder(launch, tiny, form, cell, decoder));
    program.run();
    const logits = new Float32Array(await device.read(decoder.logits, 0, decoder.logits.bytes));
    program.free();
    arena.free();
    expect(device.memory.usedBytes).toBe(0);
    return logits;
  }

  it("every form: finite logits that differ by token", async () => {
    for (const form of compareForms) {
      const logits = await logitsOf(form);
      expect(logits).toHaveLength(2 * tiny.vocab);
      expect(logits.every(Number.isFinite), form.id).toBe(true);
      expect(logits[0]).not.toBe(logits[tiny.vocab]);
    }
  });

  it("standard and flash are the same model: the same logits", async () => {
    const [a, b] = [await logitsOf(standard!), await logitsOf(flash!)];
    const worst = a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
    expect(worst).toBeLessThan(1e-4);
    expect(Math.max(...a)).toBeGreaterThan(0.5);
  });

  const options = { shape: tiny, contexts: [64, 130], batches: [1, 2], seconds: 100 };

  it("every row of every scope once, measured, forms side by side; memory given back", async () => {
    const seen: number[] = [];
    const rows = await runCompare({
      ...{ ...options, device, scopes: ["attention", "model"] },
      onRow: (_, done, total) => seen.push(done / total),
    });
    expect(rows).toHaveLength(2 * 4 * compareForms.length);
    expect(rows.slice(0, 5).map(({ form }) => form)).toEqual(compareForms.map(({ id }) => id));
    for (const { outcome, batch, cacheBytes } of rows) {
      if (outcome.status !== "measured") throw new Error(outcome.reason);
      expect(outcome.tokensPerSecond * outcome.milliseconds).toBeCloseTo(1000 * batch, 6);
      expect(outcome.peakBytes).toBeGreaterThan(cacheBytes);
    }
    expect(seen.at(-1)).toBe(1);
    expect(device.memory.usedBytes).toBe(0);
  });

  it("what does not fit is said: by arithmetic, and when the device refuses", async () => {
    const [tooLong] = await runCompare({
      ...{ ...options, device, scopes: ["attention"], contexts: [2 ** 20], batches: [64], forms: [flash!] },
    });
    expect(tooLong?.outcome).toMatchObject({
      status: "no memory",
      reason: expect.stringMatching(/needs .* GB/),
    });
    const full = () => {
      throw new UserError("The device has no room for it.");
    };
    const refusing = changedDevice(device, { allocate: full });
    const [refused] = await runCompare({ ...options, device: refusing, scopes: ["model"], forms: [wide!] });
    expect(refused?.outcome).toMatchObject({ status: "no memory", reason: expect.stringMatching(/no room/) });
    expect(device.memory.usedBytes).toBe(0);
  });

  it("a row that fails is marked with what went wrong, and the others are measured", async () => {
    const record: Device["record"] = (step) =>
      device.record((launch) => {
        const failing = (source: { name: string }, ...rest: unknown[]) => {
          if (source.name.startsWith("standard-attention")) throw new RangeError(`${source.name}: no kernel`);
          (launch as (...all: unknown[]) => void)(source, ...rest);
        };
        step(Object.assign(failing, { target: launch.target }) as typeof launch);
      });
    const broken = changedDevice(device, { record });
    const rows = await runCompare({ ...options, device: broken, scopes: ["attention"], contexts: [64] });
    const [first, second] = rows;
    expect(first?.outcome).toEqual({ status: "failed", reason: "standard-attention.score: no kernel" });
    expect(second?.outcome.status).toBe("measured");
    expect(device.memory.usedBytes).toBe(0);
  });

  it("refuses a shape that the kernels do not take, before anything is measured", async () => {
    const wide = { ...options, device, scopes: ["model"] as const, shape: { ...tiny, headWidth: 24 } };
    await expect(runCompare(wide)).rejects.toThrow(/headWidth must be a multiple of 16/);
    await expect(runCompare({ ...wide, shape: { ...tiny, ropeWidth: 48 } })).rejects.toThrow(/ropeWidth/);
  });

  it("an interruption and the end of the time keep what is done and mark the rest", async () => {
    const controller = new AbortController();
    const rows = await runCompare({
      ...{ ...options, device, scopes: ["attention"], forms: [flash!, fp8!], signal: controller.signal },
      onRow: (_, done) => (done === 3 ? controller.abort() : undefined),
    });
    const states = rows.map(({ outcome }) => outcome.status);
    expect(states.slice(0, 3)).toEqual(["measured", "measured", "measured"]);
    expect(new Set(states.slice(3))).toEqual(new Set(["interrupted"]));
    const late = await runCompare({ ...options, device, scopes: ["attention"], seconds: 0 });
    expect(new Set(late.map(({ outcome }) => outcome.status))).toEqual(new Set(["no time"]));
    expect(missingSentences(late)).toHaveLength(late.length);
  });
});

describe("tuning", () => {
  const kernelRow = (form: CompareFormId, context: number, kernelMilliseconds: number): CompareRow => ({
    ...{ scope: "attention", form, context, batch: 1, cacheBytes: 0 },
    outcome: { ...(measured(1) as MeasuredOutcome), kernelMilliseconds, ceilings },
  });
  const ceilings = { bytesPerSecond: 1e9, flopsPerSecond: 1e9 };

  it("shares by hand: tiny's 4 heads of 64 over 1000 tokens, its latents of 512 + 32", () => {
    const rows = [
      kernelRow("flash", 1000, 4),
      kernelRow("latent-512", 1000, 10),
      row("flash", 1000, measured(1)),
    ];
    const shares = tuningShares(rows, tiny);
    // Keys and values 1000·1024 bytes, q and out 2048: 1.026 ms; 4·4·64·1000 FLOPs: 1.024 ms.
    expect(shares[0]).toMatchObject({ bound: "memory" });
    expect(shares[0]!.share).toBeCloseTo((1_024_000 + 2048) / 1e6 / 4, 9);
    // 2·4·(2·512 + 32)·1000 FLOPs are 8.448 ms.
    expect(shares[1]).toMatchObject({ bound: "compute" });
    expect(shares[1]!.share).toBeCloseTo(0.8448, 9);
    expect(shares).toHaveLength(2);
  });

  it("medians are of the cells that every form has", () => {
    const share = (form: CompareFormId, context: number, value: number) => ({
      ...{ form, context, batch: 1, bound: "memory" as const, share: value },
    });
    const shares = [share("flash", 1, 0.5), share("flash", 2, 0.9), share("latent-512", 1, 0.8)];
    expect(Object.fromEntries(medianShares(shares))).toEqual({ flash: 0.5, "latent-512": 0.8 });
    expect(tuningTable(shares).slice(1)).toEqual([
      ["flash, full heads", "memory", "50 %", "50 %", "90 %", "2"],
      ["latent d_c=512", "memory", "80 %", "80 %", "80 %", "1"],
    ]);
    expect(findings([], shares)[1]).toMatch(
      /flash .* 50 % and latent .* 80 % .* favours latent attention\.$/,
    );
    expect(findings([], [share("flash", 1, 0.65), share("latent-512", 1, 0.8)])[1]).toMatch(/not favour/);
    expect(medianShares([share("flash", 1, 0.5), share("latent-512", 2, 0.8)])).toEqual(new Map());
  });

  it("the machine's ceilings: the better of two measurements, none where there is no such kernel", async () => {
    const device = await openDevice({ kind: "cpu", threads: 1 });
    const source = (await openCeilings(device))!;
    const found = source.measure();
    expect(found.bytesPerSecond).toBeGreaterThan(1e8);
    expect(found.flopsPerSecond).toBeGreaterThan(1e8);
    source.free();
    expect(device.memory.usedBytes).toBe(0);
    expect(bestCeilings(found, { bytesPerSecond: 1, flopsPerSecond: 1e20 })).toEqual({
      bytesPerSecond: found.bytesPerSecond,
      flopsPerSecond: 1e20,
    });
    expect(bestCeilings(null, found)).toBe(found);
    // A GPU before Hopper.
    expect(await openCeilings(changedDevice(device, { kind: "cuda" }))).toBe(null);
    await device.close();
  });
});

describe("breakEven", () => {
  const times = (form: CompareFormId, ...values: number[]) =>
    values.map((ms, i) => row(form, 512 * 4 ** i, measured(ms)));

  it("by the straight line between the neighbours of the crossing", () => {
    const rows = [...times("flash", 1, 3, 9), ...times("latent-512", 2, 2, 3)];
    const one = breakEven(rows, "model", 1, "latent-512", "flash");
    expect(one.finding).toEqual({ kind: "from", context: 512 + 1536 / 2 });
    expect(describeBreakEven(one)).toBe("from about 1280 tokens on");
  });

  it("always, never and unknown, never beyond what was measured", () => {
    const rows = [...times("flash", 1, 3), ...times("latent-512", 0.5, 2), ...times("latent-256", 2, 4, 5)];
    const find = (form: CompareFormId, against: CompareFormId) =>
      breakEven(rows, "model", 1, form, against).finding;
    expect(find("latent-512", "flash")).toEqual({ kind: "always", from: 512, to: 2048 });
    expect(find("latent-256", "flash")).toEqual({ kind: "never", from: 512, to: 2048 });
    expect(find("flash", "standard")).toEqual({ kind: "unknown" });
    expect(breakEvens(rows)).toHaveLength(4);
  });
});

describe("claims", () => {
  const [, fa2, mla, small] = publishedClaims.map(claimArithmetic);

  it("6.2 GB of 524,288 bytes a token are 11,826 tokens; their latents 0.44 and 0.24 GB", () => {
    expect(fa2!.impliedTokens).toBeCloseTo(6.2e9 / 524_288, 6);
    expect(mla!.cacheGigabytes).toBeCloseTo((11825.56 * 36_864) / 1e9, 3);
    expect(small!.cacheGigabytes).toBeCloseTo((11825.56 * 20_480) / 1e9, 3);
    expect(mla!.twoLatentsGigabytes).toBeCloseTo(6.2 / 8, 9);
    expect(small!.twoLatentsGigabytes).toBeCloseTo(6.2 / 16, 9);
  });

  it("floors: 13.48 GB of weights and the cache over 2.039 TB/s", () => {
    expect(fa2!.leastPeakGigabytes).toBeCloseTo(13.476 + 6.2, 2);
    expect(fa2!.floorMilliseconds).toBeCloseTo(19.676 / 2.039, 2);
  });

  it("verdicts name all five kinds of figures, two of which follow", () => {
    expect(claimVerdicts().map(({ follows }) => follows)).toEqual(["yes", "yes", "in part", "no", "no"]);
    expect(claimsTable()).toHaveLength(5);
  });
});

describe("report", () => {
  it.each([
    ["NVIDIA H200, 132 multiprocessors", "h200"],
    ["NVIDIA H100 80GB HBM3, 132 multiprocessors", "h100"],
    ["NVIDIA A100-SXM4-80GB, 108 multiprocessors", "a100"],
    ["NVIDIA GeForce RTX 4090, 128 multiprocessors", "rtx-4090"],
  ])("of %s is kept under %s", (name, slug) => {
    const report = createDeviceReport({ name: "compare" }, "0.0.0", { kind: "cuda", name });
    expect(report.machine.slug).toBe(slug);
  });

  const missing = { status: "no memory", reason: "needs 9 GB and the device has 4 GB" } as const;
  const rows = [512, 2048].flatMap((context) =>
    compareForms.map(({ id }, i) => row(id, context, context === 512 || i > 1 ? measured(i + 1) : missing)),
  );

  it("ours: the longest context at which all four were measured", () => {
    expect(ownFigures(rows)?.context).toBe(512);
    expect(ownTable(rows)[3]).toEqual(["latent d_c=512", "3.00", "3.00", "0.35", "0.59 MB", "0.14", "0.13"]);
    expect(ownTable(rows.filter(({ form }) => form !== "flash"))).toHaveLength(1);
  });

  it("rows that were not measured stay in the table, without figures, and say why", () => {
    const table = rowsTable(rows, "model");
    expect(table).toHaveLength(11);
    expect(table[6]).toEqual(["2048", "1", "standard", "not measured, no memory", "", "", "16.8 MB"]);
    expect(missingSentences(rows)[0]).toMatch(/^whole model, standard, context 2048, batch 1: needs 9 GB/);
  });

  it("times side by side, a row for each context and batch in ascending order", () => {
    const mixed = [
      row("flash", 2048, measured(3), 4),
      row("standard", 2048, missing),
      row("flash", 512, measured(1.5)),
    ];
    expect(timesTable(mixed, "model")).toEqual([
      ["context", "batch", "standard", "flash, full heads"],
      ["512", "1", "–", "1.50"],
      ["2048", "1", "–", "–"],
      ["2048", "4", "–", "3.00"],
    ]);
  });

  it("charts: a line of what was measured for each form and batch, the cache dashed", () => {
    const about = { name: "compare", device: "test", shape: tiny, isComplete: true };
    const charts = comparePage(createReport({ ...about, rows }, "0.0.0")).sections.flatMap(({ blocks }) =>
      blocks.flatMap((block) => (block.kind === "chart" ? [block.chart] : [])),
    );
    const [times, cache] = charts as [Chart, Chart];
    expect(times.title).toBe("Time per token, whole model, batch 1");
    expect(times.series.map(({ name, points }) => [name, points])).toEqual([
      ["standard", [{ x: 512, y: 1 }]],
      ["flash, full heads", [{ x: 512, y: 2 }]],
      ...[wide!, narrow!, fp8!].map(({ title }, i) => [title, [512, 2048].map((x) => ({ x, y: i + 3 }))]),
    ]);
    expect(times.series.some(({ isEstimated }) => isEstimated)).toBe(false);
    expect(cache.series.map(({ name, isEstimated }) => [name, isEstimated])).toEqual([
      ["full heads", true],
      ...[wide!, narrow!, fp8!].map(({ title }) => [title, true]),
    ]);
    expect(cache.series[0]!.points).toEqual([512, 2048].map((x) => ({ x, y: 8192 * x })));
  });

  it("as a page: every chart and table, and rows of one form alone", async () => {
    const about = { name: "compare", device: "test", shape: tiny, isComplete: true };
    const html = await renderPage(comparePage(createReport({ ...about, rows }, "0.0.0")));
    expect(html.match(/<svg/g)).toHaveLength(2);
    expect(html).toContain("Break-even");
    expect(html).toContain("not measured, no memory");
    const none = rows.map((one) => ({ ...one, outcome: missing }));
    const empty = await renderPage(comparePage(createReport({ ...about, rows: none }, "0.0.0")));
    expect(empty).toContain("0 of 10 rows were measured");
  });
});
