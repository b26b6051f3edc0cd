import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { decodeToF32, encodeFromF32 } from "../../base/convert.ts";
import type { WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { fusesNorm, linear, linearPair } from "./linear.ts";
import { linearReference } from "./reference.ts";

interface Case {
  readonly rows: number;
  readonly maxRows: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly dtype: WeightDType;
  readonly mode?: "store" | "accumulate";
  readonly padding?: number;
  readonly biased?: boolean;
  readonly scale?: number;
}

const normals = (count: number, seed: number, size = 1) => {
  const random = createRandom(seed);
  return Float32Array.from({ length: count }, () => size * random.normal());
};

/** Runs one case; returns `out`, and the float64 truth of its live rows. */
async function runCase(device: Device, test: Case) {
  const { rows, maxRows, inputs, outputs, dtype, mode = "store", padding = 0, scale = 1 } = test;
  const xStride = inputs + padding;
  const x = normals(rows * inputs, 1);
  const bytes = encodeFromF32(normals(outputs * inputs, 2, inputs ** -0.5), dtype);
  const bias = test.biased === true ? normals(outputs, 3) : undefined;
  const before = normals(rows * outputs, 4);
  const upload = (data: ArrayBufferView, label: string, size = data.byteLength) => {
    const buffer = device.allocate(size, label);
    device.write(buffer, data);
    return buffer;
  };
  const strided = new Float32Array(maxRows * xStride).fill(Number.NaN);
  for (let row = 0; row < rows; row++)
    strided.set(x.subarray(row * inputs, (row + 1) * inputs), row * xStride);
  const out = device.allocate(maxRows * outputs * 4, "out");
  if (mode === "accumulate") device.write(out, before);
  const weight = { buffer: upload(bytes, "weight"), dtype, rows: outputs, columns: inputs };
  const args = { x: upload(strided, "x"), xStride, weight, out, mode, scale, maxRows };
  const rowCount = upload(new Int32Array([rows]), "rowCount");
  const biasBuffer = bias === undefined ? undefined : upload(bias, "bias");
  const program = device.record((launch) => linear(launch, { ...args, rowCount, bias: biasBuffer }));
  program.run();
  await program.idle();
  const result = new Float32Array(await device.read(out, 0, maxRows * outputs * 4));
  program.free();
  for (const buffer of [args.x, weight.buffer, out, rowCount, biasBuffer]) buffer?.free();
  const expected = linearReference({ x, weight: decodeToF32(bytes, dtype), bias, inputs, outputs, scale });
  if (mode === "store") return { result, expected };
  return { result, expected: expected.map((value, i) => value + before[i]!) };
}

const cases: Case[] = [
  { rows: 1, maxRows: 1, inputs: 8, outputs: 1, dtype: "bf16" },
  { rows: 1, maxRows: 1, inputs: 160, outputs: 512, dtype: "bf16" },
  { rows: 1, maxRows: 4, inputs: 2048, outputs: 67, dtype: "f16", scale: 0.5, biased: true },
  { rows: 1, maxRows: 1, inputs: 2184, outputs: 74, dtype: "f32" },
  { rows: 1, maxRows: 1, inputs: 1032, outputs: 4173, dtype: "bf16" },
  { rows: 2, maxRows: 8, inputs: 96, outputs: 33, dtype: "f32", mode: "accumulate" },
  { rows: 7, maxRows: 8, inputs: 1024, outputs: 70, dtype: "bf16", padding: 24, biased: true },
  {
    rows: 33,
    maxRows: 64,
    inputs: 320,
    outputs: 131,
    dtype: "bf16",
    mode: "accumulate",
    scale: -2,
    biased: true,
  },
  { rows: 17, maxRows: 32, inputs: 2048, outputs: 257, dtype: "f16", mode: "accumulate" },
  { rows: 19, maxRows: 19, inputs: 64, outputs: 38, dtype: "f32", padding: 1 },
  { rows: 9, maxRows: 16, inputs: 40_000, outputs: 9, dtype: "bf16" },
  { rows: 0, maxRows: 16, inputs: 64, outputs: 9, dtype: "bf16" },
];

const nameOf = (test: Case) =>
  Object.entries(test)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");

describe.each(testDevices)("linear, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(cases.map((test) => [nameOf(test), test] as const))("%s", async (_name, test) => {
    const { result, expected } = await runCase(device, test);
    const tolerance = 2e-6 * Math.max(1, Math.abs(test.scale ?? 1)) * Math.max(4, Math.sqrt(test.inputs) / 8);
    for (const [i, value] of expected.entries()) {
      expect(Math.abs(result[i]! - value)).toBeLessThan(tolerance);
    }
    expect(result.subarray(expected.length).every(Number.isNaN)).toBe(true);
  });

  it.each(["bf16", "f16"] as const)(
    "%s: a row has the same bits alone, among few, among many and past the 512th",
    async (dtype) => {
      const shape = { inputs: 1032, outputs: 45, dtype } as const;
      const { result: many } = await runCase(device, { rows: 515, maxRows: 520, ...shape });
      for (const rows of [1, 2, 3, 4, 5, 12, 13, 21]) {
        const { result } = await runCase(device, { rows, maxRows: 64, ...shape });
        expect(result.slice(0, rows * 45)).toEqual(many.slice(0, rows * 45));
      }
    },
  );

  it("rejects inputs that are no multiple of 8 and buffers that are too small", () => {
    const buffer = device.allocate(64, "small");
    const args = { x: buffer, out: buffer, mode: "store", rowCount: buffer, maxRows: 1 } as const;
    const record = (rows: number, columns: number) => () =>
      device.record((launch) =>
        linear(launch, { ...args, weight: { buffer, dtype: "bf16", rows, columns } }),
      );
    expect(record(1, 12)).toThrow(/weight.columns: expected a multiple of 8, got 12/);
    expect(record(5, 8)).toThrow(/weight: expected a buffer of at least 80 bytes, got 64/);
    expect(record(1, 32)).toThrow(/x: expected a buffer of at least 128 bytes/);
    buffer.free();
  });
});

describe.each(testDevices.filter(({ kind }) => kind !== "cpu"))("linear with a norm, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each([1, 2, 3])("rows=%i of 4: two matrices over a normed input, 200 → 75 and 37", async (rows) => {
    const [inputs, first, second, maxRows, epsilon] = [200, 75, 37, 4, 1e-5];
    const target = { kind: device.kind, limits: device.limits };
    expect(fusesNorm(target, maxRows)).toBe(true);
    expect(fusesNorm(target, 17)).toBe(false);
    const upload = (data: ArrayBufferView, size = data.byteLength) => {
      const buffer = device.allocate(size, "data");
      device.write(buffer, data);
      return buffer;
    };
    const [x, norm] = [normals(rows * inputs, 1, 3), normals(inputs, 2)];
    const matrix = (outputs: number, seed: number) => {
      const bytes = encodeFromF32(normals(outputs * inputs, seed, inputs ** -0.5), "bf16");
      const weight = { buffer: upload(bytes), dtype: "bf16" as const, rows: outputs, columns: inputs };
      return {
        weight,
        out: device.allocate(maxRows * outputs * 4, "out"),
        values: decodeToF32(bytes, "bf16"),
      };
    };
    const [a, b] = [matrix(first, 3), matrix(second, 4)];
    const normed = Float32Array.from(x, (value, i) => {
      const row = x.subarray(Math.floor(i / inputs) * inputs, (Math.floor(i / inputs) + 1) * inputs);
      const mean = row.reduce((sum, one) => sum + one * one, 0) / inputs;
      return (value / Math.sqrt(mean + epsilon)) * norm[i % inputs]!;
    });
    const program = device.record((launch) => {
      linearPair(launch, {
        ...{ x: upload(x, maxRows * inputs * 4), norm: { weight: upload(norm), epsilon }, maxRows },
        ...{ first: a, second: b, rowCount: upload(new Int32Array([rows])) },
      });
    });
    expect((await program.profile()).length).toBe(1);
    for (const { weight, out, values } of [a, b]) {
      const { rows: outputs } = weight;
      const result = new Float32Array(await device.read(out, 0, out.bytes));
      const expected = linearReference({
        x: normed,
        weight: values,
        bias: undefined,
        inputs,
        outputs,
        scale: 1,
      });
      for (const [i, value] of expected.entries()) expect(Math.abs(result[i]! - value)).toBeLessThan(2e-5);
      expect(result.subarray(rows * outputs).every(Number.isNaN)).toBe(true);
    }
    program.free();
  });
});
