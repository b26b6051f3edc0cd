import { describe, expect, it } from "vitest";
import { bitsToF32 } from "./f32-bits.ts";
import { e4m3Max, e4m3ToF32, f32ToE4m3, fromE4m3, toE4m3 } from "./fp8-e4m3.ts";
import { createRandom } from "./random.ts";

const allBits = Uint8Array.from({ length: 256 }, (_, bits) => bits);

/** The value of an e4m3fn by its definition. */
function definition(bits: number): number {
  const sign = bits >>> 7 ? -1 : 1;
  const exponent = (bits >>> 3) & 15;
  const mantissa = bits & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  return exponent === 0 ? sign * (mantissa / 8) * 2 ** -6 : sign * (1 + mantissa / 8) * 2 ** (exponent - 7);
}

describe("e4m3", () => {
  it("reads all 256 patterns by the definition", () => {
    expect([...allBits].map(e4m3ToF32)).toEqual([...allBits].map(definition));
    expect(e4m3ToF32(0x7e)).toBe(e4m3Max);
    expect(e4m3ToF32(0x01)).toBe(2 ** -9);
    expect(e4m3ToF32(0x80)).toBe(-0);
  });

  it("writes back all 256 patterns", () => {
    const back = [...allBits].map(
      (bits) => f32ToE4m3(e4m3ToF32(bits)) & (Number.isNaN(definition(bits)) ? 0x7f : 0xff),
    );
    expect(back).toEqual([...allBits].map((bits) => (bits === 0xff ? 0x7f : bits)));
  });

  it("rounds every midpoint to even, and the float32 beside it to the nearer value", () => {
    for (let bits = 0; bits < 0x7e; bits++) {
      const middle = (definition(bits) + definition(bits + 1)) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const near = [middle, -middle, middle * (1 - 2 ** -23), middle * (1 + 2 ** -23)];
      expect(near.map(f32ToE4m3)).toEqual([even, even | 0x80, bits, bits + 1]);
    }
  });

  it("saturates at 448, infinities too, and keeps NaN", () => {
    expect([448, 448.1, 464, 480, 1e30, Number.POSITIVE_INFINITY].map(f32ToE4m3)).toEqual(
      Array(6).fill(0x7e),
    );
    expect([-449, Number.NEGATIVE_INFINITY].map(f32ToE4m3)).toEqual([0xfe, 0xfe]);
    expect(f32ToE4m3(Number.NaN) & 0x7f).toBe(0x7f);
  });

  it("takes random float32 patterns to the nearest value", () => {
    const finite = [...allBits].map(definition).filter(Number.isFinite);
    const random = createRandom(3);
    for (let i = 0; i < 20_000; i++) {
      const exponent = 110 + random.integer(30);
      const value = bitsToF32(
        (random.integer(2) * 2 ** 31 + exponent * 2 ** 23 + random.integer(2 ** 23)) >>> 0,
      );
      const nearest = Math.min(...finite.map((candidate) => Math.abs(candidate - value)));
      expect(Math.abs(definition(f32ToE4m3(value)) - value)).toBe(nearest);
    }
  });

  it("does the same on arrays", () => {
    const values = fromE4m3(allBits);
    expect([...values]).toEqual([...allBits].map(definition));
    expect([...toE4m3(values)].slice(0, 255)).toEqual([...allBits].slice(0, 255));
    expect(toE4m3(values)[255]! & 0x7f).toBe(0x7f);
  });
});
