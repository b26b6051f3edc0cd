import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { decodeToF32, encodeFromF32 } from "../../base/convert.ts";
import type { WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import { expertMlp, expertMlpWorkspaceBytes } from "./expert-mlp.ts";
import { expertMlpReference } from "./reference.ts";

interface Case {
  rows: number;
  experts: number;
  perToken: number;
  hidden: number;
  intermediate: number;
  dtype: WeightDType;
  layout: "separate" | "fused";
  mode: "store" | "accumulate";
  scale: number;
}

const cases: Case[] = [
  {
    rows: 1,
    experts: 8,
    perToken: 2,
    hidden: 64,
    intermediate: 24,
    dtype: "bf16",
    layout: "separate",
    mode: "store",
    scale: 1,
  },
  {
    rows: 2,
    experts: 4,
    perToken: 4,
    hidden: 40,
    intermediate: 16,
    dtype: "f16",
    layout: "separate",
    mode: "accumulate",
    scale: 0.5,
  },
  {
    rows: 33,
    experts: 16,
    perToken: 3,
    hidden: 72,
    intermediate: 40,
    dtype: "bf16",
    layout: "fused",
    mode: "accumulate",
    scale: 2,
  },
  {
    rows: 9,
    experts: 64,
    perToken: 6,
    hidden: 32,
    intermediate: 8,
    dtype: "f32",
    layout: "fused",
    mode: "store",
    scale: 1,
  },
  {
    rows: 5,
    experts: 1,
    perToken: 1,
    hidden: 8,
    intermediate: 16,
    dtype: "bf16",
    layout: "separate",
    mode: "store",
    scale: 1,
  },
  {
    rows: 201,
    experts: 4,
    perToken: 2,
    hidden: 64,
    intermediate: 72,
    dtype: "bf16",
    layout: "separate",
    mode: "store",
    scale: 1,
  },
];

function makeData({ rows, experts, perToken, hidden, intermediate, dtype }: Case) {
  const random = createRandom(rows * 100 + experts);
  const normals = (count: number, size: number) =>
    Float32Array.from({ length: count }, () => size * random.normal());
  const matrix = (columns: number) =>
    encodeFromF32(normals(experts * hidden * intermediate, columns ** -0.5), dtype);
  const ids = Int32Array.from({ length: rows * perToken }, () => 0);
  for (let row = 0; row < rows; row++) {
    const order = Array.from({ length: experts }, (_, expert) => ({ expert, key: random.uniform() }));
    order.sort((a, b) => a.key - b.key);
    for (let i = 0; i < perToken; i++) ids[row * perToken + i] = order[i]!.expert;
  }
  return {
    x: normals(rows * hidden, 1),
    ids,
    weights: Float32Array.from({ length: rows * perToken }, () => random.uniform()),
    gate: matrix(hidden),
    up: matrix(hidden),
    down: matrix(intermediate),
    before: normals(rows * hidden, 1),
  };
}

type Data = ReturnType<typeof makeData>;

function fuse({ gate, up }: Data, experts: number): Uint8Array {
  const share = gate.byteLength / experts;
  const fused = new Uint8Array(2 * gate.byteLength);
  for (let expert = 0; expert < experts; expert++) {
    fused.set(gate.subarray(expert * share, (expert + 1) * share), 2 * expert * share);
    fused.set(up.subarray(expert * share, (expert + 1) * share), (2 * expert + 1) * share);
  }
  return fused;
}

async function run(device: Device, test: Case, data: Data, rows = test.rows): Promise<Float32Array> {
  const { experts, perToken, hidden, intermediate, dtype } = test;
  const shape = { maxRows: rows + 1, experts, perToken, hidden, intermediate };
  const upload = (values: ArrayBufferView, label: string, bytes = values.byteLength) => {
    const buffer = device.allocate(bytes, label);
    device.write(buffer, values);
    return buffer;
  };
  const wide = { dtype, rows: experts * intermediate, columns: hidden };
  const gateUp =
    test.layout === "separate"
      ? ({
          layout: "separate",
          gate: { ...wide, buffer: upload(data.gate, "gate") },
          up: { ...wide, buffer: upload(data.up, "up") },
        } as const)
      : ({
          layout: "fused",
          gateUp: { ...wide, rows: wide.rows * 2, buffer: upload(fuse(data, experts), "gateUp") },
        } as const);
  const choiceBytes = shape.maxRows * perToken * 4;
  const out = device.allocate(shape.maxRows * hidden * 4, "out");
  if (test.mode === "accumulate") device.write(out, data.before.subarray(0, rows * hidden));
  const args = {
    ...shape,
    x: upload(data.x.subarray(0, rows * hidden), "x", shape.maxRows * hidden * 4),
    expertIds: upload(data.ids.subarray(0, rows * perToken), "ids", choiceBytes),
    expertWeights: upload(data.weights.subarray(0, rows * perToken), "weights", choiceBytes),
    gateUp,
    down: { dtype, rows: experts * hidden, columns: intermediate, buffer: upload(data.down, "down") },
    out,
    mode: test.mode,
    scale: test.scale,
    workspace: device.allocate(expertMlpWorkspaceBytes(shape), "workspace"),
    rowCount: upload(new Int32Array([rows]), "rowCount"),
  };
  const program = device.record((launch) => expertMlp(launch, args));
  program.run();
  await program.idle();
  const result = new Float32Array(await device.read(out, 0, out.bytes));
  program.free();
  expect(result.subarray(rows * hidden).every(Number.isNaN)).toBe(true);
  return result.subarray(0, rows * hidden);
}

describe.each(testDevices)("expert-mlp, $name", ({ open, kind }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it.each(cases)(
    "rows=$rows experts=$experts perToken=$perToken hidden=$hidden intermediate=$intermediate $dtype $layout $mode",
    async (test) => {
      const data = makeData(test);
      const result = await run(device, test, data);
      const decoded = { gate: data.gate, up: data.up, down: data.down };
      const [gate, up, down] = Object.values(decoded).map((bytes) => decodeToF32(bytes, test.dtype));
      const expected = expertMlpReference({ ...test, ...data, gate: gate!, up: up!, down: down! });
      expected.forEach((value, i) => {
        const start = test.mode === "accumulate" ? data.before[i]! : 0;
        expect(Math.abs(result[i]! - (start + test.scale * value))).toBeLessThan(1e-5);
      });
    },
  );

  it("rows=33: the bits of the first rows are those of a smaller batch", async () => {
    const test = cases[2]!;
    const data = makeData(test);
    const all = await run(device, test, data);
    // A GPU has one kernel for few rows and one for many; the bits are the kernel's.
    for (const rows of kind === "cpu" ? [1, 2, 5] : [9, 20]) {
      expect(await run(device, test, data, rows)).toEqual(all.subarray(0, rows * test.hidden));
    }
  });

  it("an id that is no expert's counts for nothing", async () => {
    const test = cases[0]!;
    const data = makeData(test);
    const weights = data.weights.map((weight, i) => (i % 2 ? 0 : weight));
    const ids = data.ids.map((id, i) => (i % 2 ? -1 : id));
    const expected = await run(device, test, { ...data, weights });
    expect(await run(device, test, { ...data, ids })).toEqual(expected);
  });

  it("shapes that do not fit are refused by name", async () => {
    const data = makeData(cases[0]!);
    await expect(run(device, { ...cases[0]!, experts: 9 }, data)).rejects.toThrow("gate");
    await expect(run(device, { ...cases[0]!, perToken: 9 }, data)).rejects.toThrow("perToken");
  });
});
