import { describe, expect, it } from "vitest";
import {
  checkBoolean,
  checkFinite,
  checkInteger,
  checkLength,
  checkOneOf,
  checkShape,
  checkString,
} from "./checks.ts";
import { decodeToF32, encodeFromF32, floatDTypes, isFloatDType } from "./convert.ts";
import { bytesPerElement, dtypes, isDType } from "./dtypes.ts";
import { errorCode, errorMessage, UserError } from "./errors.ts";
import { ceilDivide, isPowerOfTwo, nextPowerOfTwo, roundUp } from "./integers.ts";
import { createRandom } from "./random.ts";

describe("integers", () => {
  it("divides and rounds up", () => {
    expect([0, 1, 63, 64, 65].map((value) => ceilDivide(value, 64))).toEqual([0, 1, 1, 1, 2]);
    expect([0, 1, 64, 65, 2 ** 40 + 1].map((value) => roundUp(value, 64))).toEqual([
      0,
      64,
      64,
      128,
      2 ** 40 + 64,
    ]);
  });

  it("knows the powers of two, past 2^32 as well", () => {
    expect([0, 1, 2, 3, 64, 2 ** 31, 2 ** 40, -4, 0.5].map(isPowerOfTwo)).toEqual([
      false,
      true,
      true,
      false,
      true,
      true,
      true,
      false,
      false,
    ]);
    expect([1, 2, 3, 65, 2 ** 33 + 1].map(nextPowerOfTwo)).toEqual([1, 2, 4, 128, 2 ** 34]);
  });
});

describe("checks", () => {
  it("return what they accept", () => {
    expect(checkInteger("pageSize", 64, { min: 1, max: 64 })).toBe(64);
    expect(checkFinite("scale", -0.5)).toBe(-0.5);
    expect(checkOneOf("dtype", "bf16", ["f32", "bf16"])).toBe("bf16");
    expect(checkString("name", "q")).toBe("q");
    expect(checkBoolean("causal", false)).toBe(false);
    expect(checkLength("rows", [1, 2], 2)).toEqual([1, 2]);
    expect(checkShape("q", [2, 5, 576], [2, null, 576])).toEqual([2, 5, 576]);
  });

  it("throw TypeError for a wrong kind, naming argument, value and expectation", () => {
    const cases: [() => unknown, string][] = [
      [() => checkInteger("n", "64", { min: 1 }), 'n must be an integer of at least 1, got "64"'],
      [() => checkInteger("n", 3n), "n must be an integer, got 3n (bigint)"],
      [() => checkFinite("scale", undefined), "scale must be a finite number, got undefined"],
      [() => checkOneOf("dtype", 3, ["f32", "f16"]), "dtype must be one of f32, f16, got 3"],
      [() => checkString("name", new Uint8Array(2)), "name must be a string, got a Uint8Array"],
      [() => checkBoolean("causal", [1]), "causal must be true or false, got an array of 1"],
    ];
    for (const [check, message] of cases) expect(check).toThrow(new TypeError(message));
  });

  it("throw RangeError for a wrong value, naming argument, value and expectation", () => {
    const cases: [() => unknown, string][] = [
      [() => checkInteger("n", 0, { min: 1, max: 8 }), "n must be an integer from 1 to 8, got 0"],
      [() => checkInteger("n", 9, { max: 8 }), "n must be an integer of at most 8, got 9"],
      [() => checkInteger("n", 1.5), "n must be an integer, got 1.5"],
      [() => checkInteger("n", 2 ** 53), "n must be an integer, got 9007199254740992"],
      [() => checkFinite("scale", Number.NaN), "scale must be a finite number, got NaN"],
      [() => checkFinite("p", 1.1, { min: 0, max: 1 }), "p must be a finite number from 0 to 1, got 1.1"],
      [() => checkOneOf("dtype", "q4", ["f32", "f16"]), 'dtype must be one of f32, f16, got "q4"'],
      [() => checkString("name", ""), "name must not be empty"],
      [() => checkShape("q", [2, 5], [2, null, 576]), "q must have the shape [2, any, 576], got [2, 5]"],
    ];
    for (const [check, message] of cases) expect(check).toThrow(new RangeError(message));
  });
});

describe("dtypes", () => {
  it("have sizes and names", () => {
    expect(bytesPerElement("bf16")).toBe(2);
    expect(dtypes.map(bytesPerElement).every((bytes) => [1, 2, 4, 8].includes(bytes))).toBe(true);
    expect([isDType("fp8_e4m3"), isDType("toString"), isDType(4)]).toEqual([true, false, false]);
    expect(dtypes.filter(isFloatDType).sort()).toEqual([...floatDTypes].sort());
  });

  it.each(floatDTypes)("%s converts both ways, at odd offsets too", (dtype) => {
    const values = Float32Array.of(0, 1, -2, 0.5, 448, Number.NaN);
    const bytes = encodeFromF32(values, dtype);
    expect(bytes.length).toBe(values.length * bytesPerElement(dtype));
    const shifted = Buffer.alloc(bytes.length + 1);
    shifted.set(bytes, 1);
    const decoded = decodeToF32(shifted.subarray(1), dtype);
    expect(decoded).toEqual(values);
    shifted.fill(0);
    expect(decoded).toEqual(values);
    if (dtype !== "fp8_e4m3") expect(() => decodeToF32(bytes.subarray(1), dtype)).toThrow(RangeError);
  });
});

describe("random", () => {
  it("repeats by seed and differs between seeds", () => {
    const draw = (seed: number) => [...createRandom(seed).normals(4)];
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  it("a permutation has every number once, and each is likely anywhere", () => {
    const random = createRandom(5);
    const first = new Array<number>(6).fill(0);
    for (let i = 0; i < 6000; i++) {
      const order = random.permutation(6);
      expect([...order].sort()).toEqual([0, 1, 2, 3, 4, 5]);
      first[order[0]!]!++;
    }
    expect(Math.max(...first.map((count) => Math.abs(count - 1000)))).toBeLessThan(130);
    expect(random.permutation(0)).toHaveLength(0);
  });

  it("is uniform and normal to within the noise of 50000 draws", () => {
    const random = createRandom(11);
    const normals = random.normals(50_000, 2);
    const mean = normals.reduce((sum, value) => sum + value, 0) / normals.length;
    const variance = normals.reduce((sum, value) => sum + (value - mean) ** 2, 0) / normals.length;
    expect(Math.abs(mean)).toBeLessThan(0.04);
    expect(Math.abs(variance - 4)).toBeLessThan(0.12);
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 50_000; i++) counts[random.integer(10)]!++;
    expect(Math.max(...counts.map((count) => Math.abs(count - 5000)))).toBeLessThan(350);
  });
});

describe("errors", () => {
  it("UserError is an Error with its own name and its cause", () => {
    const error = new UserError("model.safetensors ends too early; download it again", { cause: 1 });
    expect(error).toBeInstanceOf(Error);
    expect([error.name, error.cause]).toEqual(["UserError", 1]);
  });

  it("reads the code and message of whatever was thrown", () => {
    expect(errorCode(Object.assign(new Error("full"), { code: "ENOSPC" }))).toBe("ENOSPC");
    expect([errorCode(new Error("x")), errorCode(null), errorCode({ code: 3 })]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect([errorMessage(new Error("full")), errorMessage("text")]).toEqual(["full", "text"]);
  });
});
