import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { decodeToF32 } from "./convert.ts";
import { decodeFp8Entry, encodeFp8Entry, fp8Entry, fp8EntryBytes, fp8GroupScale } from "./fp8-entry.ts";
import { createRandom } from "./random.ts";

// Eight tokens of the public implementation: 576 bf16, their 656-byte entry, and the entry's values as 576 bf16.
const golden = readFileSync(new URL("../../tests/golden/fp8-entries.bin", import.meta.url));
const rowBytes = 1152 + 656 + 1152;

describe("the fp8 cache entry", () => {
  for (let row = 0; row < golden.length / rowBytes; row++) {
    const start = row * rowBytes;
    const entry = new Uint8Array(golden.subarray(start + 1152, start + 1808));

    it(`encodes golden token ${row} bit for bit`, () => {
      const values = decodeToF32(golden.subarray(start, start + 1152), "bf16");
      expect(encodeFp8Entry(values.subarray(0, 512), values.subarray(512))).toEqual(entry);
    });

    it(`decodes golden token ${row} bit for bit`, () => {
      const values = decodeToF32(golden.subarray(start + 1808, start + rowBytes), "bf16");
      expect(decodeFp8Entry(entry)).toEqual(values);
    });
  }

  it("scales by the least power of two that brings the largest value to 448 or under", () => {
    const random = createRandom(4);
    for (let i = 0; i < 10_000; i++) {
      const largest = Math.fround(random.uniform() * 2 ** (random.integer(200) - 100));
      const scale = fp8GroupScale(largest);
      expect(Number.isInteger(Math.log2(scale))).toBe(true);
      expect(largest / scale).toBeLessThanOrEqual(448);
      expect(largest / (scale / 2)).toBeGreaterThan(448);
    }
    expect([448, 448.00003, 0.4375, 896, 0].map(fp8GroupScale)).toEqual([1, 2, 2 ** -10, 2, 2 ** -126]);
  });

  it("keeps a token of zeros, and one whose groups are 2^80 apart", () => {
    const zeros = new Float32Array(576);
    expect(decodeFp8Entry(encodeFp8Entry(zeros.subarray(0, 512), zeros.subarray(512)))).toEqual(zeros);
    const latent = Float32Array.from({ length: 512 }, (_, i) => 2 ** (-60 + 40 * Math.floor(i / 128)));
    expect(decodeFp8Entry(encodeFp8Entry(latent, zeros.subarray(512))).subarray(0, 512)).toEqual(latent);
  });

  it("keeps a NaN in its place without touching its group", () => {
    const latent = new Float32Array(512).fill(3);
    latent[5] = Number.NaN;
    const decoded = decodeFp8Entry(encodeFp8Entry(latent, new Float32Array(64)));
    expect(decoded.subarray(0, 512)).toEqual(latent);
  });

  it("is within 1/16 of every value of normal size", () => {
    const values = createRandom(5).normals(576);
    const decoded = decodeFp8Entry(encodeFp8Entry(values.subarray(0, 512), values.subarray(512)));
    for (let i = 0; i < 576; i++) {
      const allowed = Math.max(Math.abs(values[i]!) / (i < 512 ? 16 : 256), 2 ** -16);
      expect(Math.abs(decoded[i]! - values[i]!)).toBeLessThanOrEqual(allowed);
    }
  });

  it("has a scale per 128 values at any width", () => {
    const values = createRandom(6).normals(288);
    values.subarray(128, 256).forEach((value, i) => {
      values[128 + i] = value * 2 ** 20;
    });
    const entry = encodeFp8Entry(values.subarray(0, 256), values.subarray(256));
    expect(entry.length).toBe(fp8EntryBytes({ latentWidth: 256, ropeWidth: 32 }));
    expect(entry.length).toBe(256 + 8 + 64);
    const decoded = decodeFp8Entry(entry, { latentWidth: 256, ropeWidth: 32 });
    values.forEach((value, i) => {
      expect(Math.abs(decoded[i]! - value)).toBeLessThanOrEqual(
        Math.max(Math.abs(value) / 16, i < 128 || i > 255 ? 2 ** -16 : 2 ** 5),
      );
    });
  });
  it("names the argument of a wrong length", () => {
    expect(() => encodeFp8Entry(new Float32Array(511), new Float32Array(64))).toThrow(
      new RangeError("latentWidth must be a multiple of 128 in an fp8 entry, got 511"),
    );
    expect(() => decodeFp8Entry(new Uint8Array(fp8Entry.bytes + 1))).toThrow(
      new RangeError("entry must have 656 elements, got 657"),
    );
  });
});
