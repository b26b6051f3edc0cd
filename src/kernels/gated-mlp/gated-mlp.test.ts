import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { decodeToF32, encodeFromF32 } from "../../base/convert.ts";
import type { WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { gatedMlp } from "./gated-mlp.ts";
import { gatedMlpReference } from "./reference.ts";

interface Case {
  readonly rows: number;
  readonly maxRows: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly dtype: WeightDType;
  readonly mode?: "store" | "accumulate";
  readonly scale?: number;
}

const normals = (count: number, seed: number, size: number) => {
  const random = createRandom(seed);
  return Float32Array.from({ length: count }, () => size * random.normal());
};

/** Runs one case; returns `out`, and the float64 truth of its live rows. */
async function runCase(device: Device, test: Case) {
  const { rows, maxRows, hidden, intermediate, dtype, mode = "store", scale = 1 } = test;
  const x = normals(rows * hidden, 1, 1);
  const matrix = (seed: number, size: number, outputs: number, inputs: number) => {
    const bytes = encodeFromF32(normals(outputs * inputs, seed, size * inputs ** -0.5), dtype);
    const buffer = device.allocate(bytes.byteLength, `weight ${seed}`);
    device.write(buffer, bytes);
    return { values: decodeToF32(bytes, dtype), weight: { buffer, dtype, rows: outputs, columns: inputs } };
  };
  const gate = matrix(2, 6, intermediate, hidden);
  const up = matrix(3, 1, intermediate, hidden);
  const down = matrix(4, 1, hidden, intermediate);
  const buffers = {
    x: device.allocate(maxRows * hidden * 4, "x"),
    out: device.allocate(maxRows * hidden * 4, "out"),
    workspace: device.allocate(maxRows * intermediate * 4, "workspace"),
    rowCount: device.allocate(4, "rowCount"),
  };
  const before = normals(rows * hidden, 5, 1);
  device.write(buffers.x, x);
  if (mode === "accumulate") device.write(buffers.out, before);
  device.write(buffers.rowCount, new Int32Array([rows]));
  const weights = { gate: gate.weight, up: up.weight, down: down.weight };
  const program = device.record((launch) =>
    gatedMlp(launch, { ...buffers, ...weights, mode, scale, maxRows }),
  );
  program.run();
  await program.idle();
  const result = new Float32Array(await device.read(buffers.out, 0, buffers.out.bytes));
  program.free();
  for (const buffer of Object.values(buffers)) buffer.free();
  for (const { buffer } of Object.values(weights)) buffer.free();
  const values = { gate: gate.values, up: up.values, down: down.values };
  const expected = gatedMlpReference({ x, ...values, hidden, intermediate });
  return { result, expected: expected.map((v, i) => scale * v + (mode === "store" ? 0 : before[i]!)) };
}

const cases: Case[] = [
  { rows: 1, maxRows: 1, hidden: 128, intermediate: 320, dtype: "bf16" },
  { rows: 1, maxRows: 4, hidden: 520, intermediate: 72, dtype: "f16", mode: "accumulate", scale: 0.3 },
  { rows: 5, maxRows: 8, hidden: 160, intermediate: 256, dtype: "bf16", mode: "accumulate" },
  { rows: 21, maxRows: 64, hidden: 1024, intermediate: 200, dtype: "bf16", scale: 2 },
  { rows: 12, maxRows: 12, hidden: 64, intermediate: 40, dtype: "f32" },
  { rows: 0, maxRows: 2, hidden: 8, intermediate: 8, dtype: "bf16" },
];

const nameOf = (test: Case) =>
  Object.entries(test)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");

describe.each(testDevices)("gated-mlp, $name", ({ open, kind }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(cases.map((test) => [nameOf(test), test] as const))("%s", async (_name, test) => {
    const { result, expected } = await runCase(device, test);
    for (const [i, value] of expected.entries()) expect(Math.abs(result[i]! - value)).toBeLessThan(3e-5);
    expect(result.subarray(expected.length).every(Number.isNaN)).toBe(true);
  });

  /** On a GPU one kernel takes up to 8 rows and another one more: the bits are those of the kernel. */
  const batches: [rows: number, maxRows: number][][] =
    kind === "cpu"
      ? [
          [
            [1, 1],
            [5, 8],
            [21, 64],
          ],
        ]
      : [
          [
            [1, 1],
            [5, 8],
          ],
          [
            [1, 64],
            [21, 64],
          ],
        ];
  it.each(batches)("row 0 has the same bits whatever the batch: %j and on", async (...batch) => {
    const shape = { hidden: 136, intermediate: 72, dtype: "bf16" } as const;
    const runs: Float32Array[] = [];
    for (const [rows, maxRows] of batch) {
      const { result } = await runCase(device, { rows, maxRows, ...shape });
      runs.push(result.slice(0, 136));
    }
    for (const run of runs.slice(1)) expect(run).toEqual(runs[0]);
  });

  it("rejects a down projection that does not fit gate", () => {
    const buffer = device.allocate(4096, "buffer");
    const matrix = { buffer, dtype: "bf16", rows: 16, columns: 8 } as const;
    const args = {
      x: buffer,
      out: buffer,
      workspace: buffer,
      mode: "store",
      rowCount: buffer,
      maxRows: 1,
    } as const;
    const weights = { gate: matrix, up: matrix, down: matrix };
    expect(() => device.record((launch) => gatedMlp(launch, { ...args, ...weights }))).toThrow(
      /down: expected the shape \[8, 16\], got \[16, 8\]/,
    );
    buffer.free();
  });
});
