import { describe, expect, it } from "vitest";
import { bf16ToF32, f32ToBf16, fromBf16, toBf16 } from "./bf16.ts";
import { bitsToF32, f32ToBits } from "./f32-bits.ts";
import { createRandom } from "./random.ts";

const allBits = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
const isNaNBf16 = (bits: number) => (bits & 0x7fff) > 0x7f80;

describe("bf16", () => {
  it("reads all 65536 patterns as the upper half of a float32", () => {
    const wrong = allBits.filter((bits) => !Object.is(bf16ToF32(bits), bitsToF32(bits * 65536)));
    expect([...wrong]).toEqual([]);
    expect(bf16ToF32(0x3f80)).toBe(1);
    expect(bf16ToF32(0xc2f7)).toBe(-123.5);
    expect(bf16ToF32(1)).toBe(2 ** -133);
  });

  it("writes back all 65536 patterns, NaNs as NaNs", () => {
    const wrong = allBits.filter((bits) => {
      const back = f32ToBf16(bf16ToF32(bits));
      return isNaNBf16(bits) ? !isNaNBf16(back) : back !== bits;
    });
    expect([...wrong]).toEqual([]);
  });

  it("rounds every midpoint to even, and the float32 beside it to the nearer value", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < 0x7f80; bits++) {
      const middle = bits * 65536 + 0x8000;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const results = [middle, middle - 1, middle + 1, middle + 2 ** 31].map((pattern) =>
        f32ToBf16(bitsToF32(pattern)),
      );
      const expected = [even, bits, bits + 1, even | 0x8000];
      if (results.some((result, i) => result !== expected[i])) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  it("takes random float32 patterns to the nearest value", () => {
    const random = createRandom(2);
    for (let i = 0; i < 100_000; i++) {
      const value = bitsToF32(random.integer(2 ** 32));
      const bits = f32ToBf16(value);
      if (Number.isNaN(value)) expect(isNaNBf16(bits)).toBe(true);
      else if (Math.abs(bits * 65536 - f32ToBits(value)) > 0x8000)
        expect.fail(`${value} became ${bf16ToF32(bits)}`);
    }
  });

  it("does the same on arrays, NaN payloads kept", () => {
    const values = fromBf16(allBits);
    expect(toBf16(values)).toEqual(allBits.map((bits) => (isNaNBf16(bits) ? bits | 0x40 : bits)));
    expect(values[0x3f80]).toBe(1);
  });

  it("never makes an infinity of a NaN whose payload is in the lower half", () => {
    expect(isNaNBf16(toBf16(new Float32Array(Uint32Array.of(0x7f800001).buffer))[0]!)).toBe(true);
    expect(isNaNBf16(toBf16(new Float32Array(Uint32Array.of(0xffffffff).buffer))[0]!)).toBe(true);
  });

  it("keeps signed zeros and infinities, and overflows to infinity", () => {
    expect(f32ToBf16(-0)).toBe(0x8000);
    expect(f32ToBf16(Number.NEGATIVE_INFINITY)).toBe(0xff80);
    expect(f32ToBf16(bitsToF32(0x7f7fffff))).toBe(0x7f80);
    expect(f32ToBf16(bitsToF32(0x7f7f7fff))).toBe(0x7f7f);
  });
});
