import { describe, expect, it } from "vitest";
import { decodeToF32 } from "../../../base/convert.ts";
import { type ComparedRows, compareRows, sampleRows } from "./compare.ts";

const tolerance = { absolute: 1e-3, relative: 1e-2, cosine: 1e-5 };

/** Three live rows of two values and one poisoned row after them. */
function compared(change: Partial<ComparedRows> = {}, edit: (actual: Float32Array) => void = () => {}) {
  const actual = new Float32Array(8);
  new Uint8Array(actual.buffer).fill(0xff);
  actual.set([1, 2, -3, 4, 50, 60]);
  edit(actual);
  const expected = [1, 2, -3, 4, 50, 60];
  return compareRows({ output: "out", actual, width: 2, liveRows: 3, expected, tolerance, ...change });
}

describe("compareRows", () => {
  it("passes equal rows with errors of 0", () => {
    expect(compared()).toEqual({
      ...{ output: "out", rows: 3, checkedRows: 3, absolute: 0, relative: 0, cosine: 0 },
      ...{ tolerance, problem: null },
    });
  });

  it("passes within either tolerance and reports the worst errors", () => {
    const finding = compared({}, (actual) => actual.set([1.0005], 0));
    expect(finding.problem).toBeNull();
    expect(finding.absolute).toBeCloseTo(0.0005, 6);
    expect(finding.relative).toBeCloseTo(0.0005 / Math.sqrt(2.5), 6);
    expect(
      compared({ tolerance: { ...tolerance, cosine: 1 } }, (actual) => actual.set([60.5], 5)).problem,
    ).toBeNull();
  });

  it("names the value that is outside both", () => {
    expect(compared({}, (actual) => actual.set([4.1], 3)).problem).toMatch(
      /^row 1 value 1 is 4.09\d+, float64 has 4$/,
    );
  });

  it("fails values that are near each but turned together", () => {
    const loose = { absolute: 10, relative: 0, cosine: 1e-5 };
    expect(compared({ tolerance: loose }, (actual) => actual.set([55], 5)).problem).toMatch(/1 − cosine is/);
    expect(
      compared({ tolerance: { ...loose, absolute: 100 } }, (actual) => actual.fill(0, 0, 6)).problem,
    ).toMatch(/1 − cosine is 1,/);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("fails %f in a row that is not compared", (value) => {
    const sampled = { rows: [0], expected: [1, 2] };
    expect(compared(sampled).problem).toBeNull();
    const finding = compared(sampled, (actual) => actual.set([value], 4));
    expect(finding.problem).toBe(`row 2 value 0 is ${value} where a finite value belongs`);
    expect(finding.absolute).toBeNaN();
  });

  it("takes a constant row only exactly", () => {
    const infinite = { constantOf: (row: number) => (row === 1 ? Number.POSITIVE_INFINITY : null) };
    const sampled = { ...infinite, rows: [0, 1], expected: [1, 2, Infinity, Infinity] };
    const write = (value: number) => (actual: Float32Array) => actual.fill(value, 2, 4);
    expect(compared(sampled, write(Infinity)).problem).toBeNull();
    for (const wrong of [-Infinity, 3e38, Number.NaN, 0]) {
      expect(compared(sampled, write(wrong)).problem).toMatch(/^row 1 value 0 is .* where Infinity belongs$/);
    }
  });

  it("fails a row past the live ones that was written, even with another NaN", () => {
    for (const value of [0, Number.NaN]) {
      expect(compared({}, (actual) => actual.set([value], 7)).problem).toBe(
        "writes row 3 value 1, past the 3 rows in use",
      );
    }
  });

  it.each(["bf16", "f16", "fp8_e4m3"] as const)("knows untouched %s values, widened", (storedAs) => {
    const bits = new Uint32Array(decodeToF32(new Uint8Array(4).fill(0xff), storedAs).buffer)[0]!;
    const widened = (actual: Float32Array) => new Uint32Array(actual.buffer).fill(bits, 6);
    expect(compared({ storedAs }, widened).problem).toBeNull();
    expect(compared({}, widened).problem).toMatch(/^writes row 3/);
    expect(compared({ storedAs }).problem).toMatch(/^writes row 3/);
  });

  it("fails a buffer that is too short", () => {
    expect(compared({ liveRows: 5 }).problem).toMatch(/has 8 values where 10 belong/);
  });
});

describe("sampleRows", () => {
  it("takes all when there are few, else the first, the last and one of every span between", () => {
    expect(sampleRows(3, 5, () => 0.5)).toEqual([0, 1, 2]);
    expect(sampleRows(102, 6, () => 0.999)).toEqual([0, 25, 50, 75, 100, 101]);
    expect(sampleRows(102, 6, () => 0)).toEqual([0, 1, 26, 51, 76, 101]);
    expect(sampleRows(7, 6, () => 0.999)).toEqual([0, 2, 3, 4, 5, 6]);
  });
});
