import { describe, expect, it } from "vitest";
import { f16ToF32, f32ToF16, fromF16, toF16 } from "./f16.ts";
import { bitsToF32 } from "./f32-bits.ts";
import { createRandom } from "./random.ts";

/** The value of a binary16 by its definition. */
function definition(bits: number): number {
  const sign = bits >>> 15 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

const allBits = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
const isNaN16 = (bits: number) => (bits & 0x7fff) > 0x7c00;

describe("f16", () => {
  it("reads all 65536 patterns by the definition", () => {
    const wrong = allBits.filter((bits) => !Object.is(f16ToF32(bits), definition(bits)));
    expect([...wrong]).toEqual([]);
  });

  it("writes back all 65536 patterns, NaNs as quiet NaNs of the same sign", () => {
    const wrong = allBits.filter((bits) => {
      const back = f32ToF16(f16ToF32(bits));
      return isNaN16(bits) ? !isNaN16(back) : back !== bits;
    });
    expect([...wrong]).toEqual([]);
  });

  it("rounds every midpoint to even, and the float32 beside it to the nearer value", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < 0x7c00; bits++) {
      const next = bits + 1 === 0x7c00 ? 65536 : definition(bits + 1);
      const middle = (definition(bits) + next) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const results = [
        f32ToF16(middle),
        f32ToF16(middle * (1 - 2 ** -23)),
        f32ToF16(middle * (1 + 2 ** -23)),
      ];
      const negative = f32ToF16(-middle);
      const expected = [even, bits, bits + 1];
      if (results.some((result, i) => result !== expected[i]) || negative !== (even | 0x8000))
        wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  it("takes random float32 patterns to the nearest value", () => {
    const random = createRandom(1);
    for (let i = 0; i < 100_000; i++) {
      const value = bitsToF32(random.integer(2 ** 32));
      const bits = f32ToF16(value);
      if (Number.isNaN(value)) expect(isNaN16(bits)).toBe(true);
      else if (Math.abs(value) >= 65520) expect(bits & 0x7fff).toBe(0x7c00);
      else {
        const error = Math.abs(definition(bits) - value);
        const magnitude = bits & 0x7fff;
        const above = Math.abs(definition(magnitude + 1) - Math.abs(value));
        const below =
          magnitude === 0 ? Number.POSITIVE_INFINITY : Math.abs(definition(magnitude - 1) - Math.abs(value));
        if (error > above || error > below) expect.fail(`${value} became ${definition(bits)}`);
      }
    }
  });

  it("does the same on arrays, NaN payloads kept", () => {
    const values = fromF16(allBits);
    expect(toF16(values)).toEqual(allBits.map((bits) => (isNaN16(bits) ? bits | 0x200 : bits)));
    expect(values[0x3c00]).toBe(1);
  });

  it("keeps signed zeros and infinities", () => {
    expect(f32ToF16(-0)).toBe(0x8000);
    expect(f32ToF16(Number.POSITIVE_INFINITY)).toBe(0x7c00);
    expect(f32ToF16(Number.NEGATIVE_INFINITY)).toBe(0xfc00);
    expect(f32ToF16(65519.99)).toBe(0x7bff);
    expect(f32ToF16(65520)).toBe(0x7c00);
  });
});
