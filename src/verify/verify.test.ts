import { describe, expect, it } from "vitest";
import { UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import { openDevice } from "../device/open.ts";
import type { Finding, KernelCase, PreparedCase } from "../kernels/common/cases/kernel-case.ts";
import { mlaDecodeCases } from "../kernels/mla-decode/cases.ts";
import { rmsNormCases } from "../kernels/rms-norm/cases.ts";
import { allCases } from "./kernels.ts";
import { summarise } from "./summary.ts";
import type { VerifyTarget } from "./targets.ts";
import { verifyKernels } from "./verify.ts";

const tolerance = { absolute: 1e-3, relative: 0 };
const finding: Finding = {
  ...{ output: "out", rows: 4, checkedRows: 2, absolute: 1e-4, relative: 1e-3, cosine: 0 },
  ...{ tolerance, problem: null },
};

function fakeCase(check: PreparedCase["check"], shape = "n=1"): KernelCase {
  return { kernel: "fake", group: "group", shape, isQuick: true, prepare: () => ({ check }) };
}

/** A CPU device; `edit` changes the bytes that every read gives. */
function target(edit: (bytes: Uint8Array) => void = () => {}): VerifyTarget & { opened: number } {
  const made = {
    ...{ kind: "cpu", opened: 0 },
    async open(): Promise<Device> {
      made.opened++;
      const device = await openDevice({ kind: "cpu", threads: 1, poison: true });
      const read = device.read.bind(device);
      device.read = async (...range) => {
        const bytes = await read(...range);
        edit(new Uint8Array(bytes));
        return bytes;
      };
      return device;
    },
  };
  return made;
}

const missing: VerifyTarget = {
  kind: "cuda",
  open: () => Promise.reject(new UserError("There is no GPU here.")),
};

describe("verifyKernels", () => {
  it("makes the truth of a case once for all targets and names those that are absent", async () => {
    let [prepared, checked] = [0, 0];
    const counted = {
      ...fakeCase(async () => []),
      prepare: () => {
        prepared++;
        return { check: async () => [finding].slice(0, ++checked) };
      },
    };
    const done: number[] = [];
    const { results, absent } = await verifyKernels({
      ...{ cases: [counted, counted], targets: [target(), missing, target()] },
      onCase: (count) => done.push(count),
    });
    expect([prepared, checked, results.length]).toEqual([2, 4, 4]);
    expect(absent).toEqual([{ kind: "cuda", reason: "There is no GPU here." }]);
    expect(done).toEqual([1, 2]);
  });

  it("begins no case after the signal, and keeps what was done", async () => {
    const controller = new AbortController();
    const one = fakeCase(async () => [finding]);
    const { results, notBegun } = await verifyKernels({
      ...{ cases: [one, one, one], targets: [target()], signal: controller.signal },
      onCase: () => controller.abort(),
    });
    expect([results.length, notBegun]).toEqual([1, 2]);
  });

  it("rejects with what is missing when no target opens", async () => {
    const options = { cases: [fakeCase(async () => [finding])], targets: [missing] };
    await expect(verifyKernels(options)).rejects.toThrow("There is no GPU here.");
  });

  it("takes a thrown error for a failure and opens the device anew", async () => {
    const broken = fakeCase(async () => {
      throw new RangeError("trap");
    });
    const one = target();
    const { results } = await verifyKernels({
      cases: [broken, fakeCase(async () => [finding])],
      targets: [one],
    });
    expect(results.map(({ outcome }) => outcome.kind)).toEqual(["broken", "checked"]);
    expect(one.opened).toBe(2);
    const summary = summarise(results);
    expect(summary).toMatchObject({ isPassed: false, failures: [{ problem: "cannot be run: trap" }] });
  });

  it("does not hold a kernel or memory that the device lacks against it, but passes nothing alone", async () => {
    const huge = fakeCase(async (memory) => {
      memory.reserve("everything", 2 ** 40);
      return [finding];
    });
    const unknown = fakeCase(async (memory) => {
      await memory.run((launch) => launch({ name: "new", buffers: [], scalars: [] }, 1, []));
      return [finding];
    });
    const { results } = await verifyKernels({ cases: [huge, unknown], targets: [target()] });
    const summary = summarise(results);
    expect(summary.impossible.map(({ reason }) => reason)).toEqual([
      expect.stringMatching(/no room for everything/),
      "new has no cpu kernel yet.",
    ]);
    expect(summary).toMatchObject({ isPassed: false, cases: 0, failures: [] });
  });

  it("gives the memory of every case back", async () => {
    const leaked: number[] = [];
    const look = fakeCase(async (memory) => {
      leaked.push(memory.device.memory.usedBytes);
      memory.reserve("some", 4096);
      return [finding];
    });
    await verifyKernels({ cases: [look, look], targets: [target()] });
    expect(leaked).toEqual([0, 0]);
  });
});

describe("a device that computes wrongly", () => {
  const cases = [rmsNormCases()[1]!, mlaDecodeCases().find(({ group }) => group === "fp8 cache")!];

  it.each([
    ["a flipped exponent bit", (bytes: Uint8Array) => (bytes[3]! ^= 1)],
    ["one NaN", (bytes: Uint8Array) => bytes.fill(0xff, 0, 4)],
    ["zeros", (bytes: Uint8Array) => bytes.fill(0)],
    ["a write past the end", (bytes: Uint8Array) => bytes.fill(0, bytes.length - 4)],
  ])("fails with %s", async (_name, edit) => {
    const { results } = await verifyKernels({ cases, targets: [target((bytes) => void edit(bytes))] });
    const { failures, rows, isPassed } = summarise(results);
    expect(isPassed).toBe(false);
    expect(new Set(failures.map(({ kernel }) => kernel))).toEqual(new Set(["rms-norm", "mla-decode"]));
    expect(rows.filter(({ failed }) => failed > 0).length).toBeGreaterThanOrEqual(2);
  });

  it("passes untouched", async () => {
    const { results } = await verifyKernels({ cases, targets: [target()] });
    expect(summarise(results).failures).toEqual([]);
  });
});

it("summarise adds counts up, keeps the worst errors and shows a NaN", async () => {
  const worse = { ...finding, absolute: 2e-3, tolerance: { absolute: 1e-2, relative: 0 }, problem: "row 1" };
  const unjudged = { ...finding, absolute: Number.NaN, problem: "NaN" };
  const results = [finding, worse].map((one, i) => ({
    ...{ device: "a", case: fakeCase(async () => [], `n=${i}`) },
    outcome: { kind: "checked", findings: [one] } as const,
  }));
  const { rows, failures, cases } = summarise(results);
  expect(rows).toEqual([
    {
      ...{ device: "a", kernel: "fake", group: "group", output: "out", cases: 2, failed: 1 },
      ...{ rows: 8, checkedRows: 4, absolute: 2e-3, relative: 1e-3, cosine: 0, tolerance: worse.tolerance },
    },
  ]);
  expect(failures).toEqual([
    { device: "a", kernel: "fake", group: "group", shape: "n=1", problem: "out: row 1" },
  ]);
  expect(cases).toBe(2);
  const nan = { ...results[0]!, outcome: { kind: "checked", findings: [unjudged] } as const };
  expect(summarise([nan, ...results]).rows[0]!.absolute).toBeNaN();
});

it("the public suite has every combination of its shapes, both masks, both kinds of lengths", () => {
  const suite = allCases().filter(({ group }) => group === "public suite");
  const shapes = new Set(
    suite.map(({ shape }) => shape.replace(/(fixed|varying) lengths | (causal|full)$/g, "")),
  );
  for (const b of [1, 2, 6, 64])
    for (const sQ of [1, 2, 4])
      for (const sK of [20, 140, 4096])
        for (const h of [1, 3, 9, 63, 64, 126, 128]) {
          expect(shapes).toContain(`b=${b} s_k=${sK} s_q=${sQ} h=${h}`);
        }
  for (const word of ["causal", "full", "fixed", "varying", "b=128 s_k=4096 some zero"]) {
    expect(suite.filter(({ shape }) => shape.includes(word)).length, word).toBeGreaterThan(0);
  }
  expect(new Set(suite.map(({ shape }) => shape)).size).toBe(suite.length);
});
