import type { WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { Finding, KernelCase, PreparedCase } from "../common/cases/kernel-case.ts";
import { randomMatrix } from "../common/cases/stored.ts";
import { linear } from "./linear.ts";
import { linearReference } from "./reference.ts";

interface LinearShape {
  readonly rows: number;
  readonly maxRows: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly dtype: WeightDType;
  readonly mode?: "store" | "accumulate";
  /** Floats between the rows of x, filled with NaN. */
  readonly padding?: number;
  readonly isBiased?: boolean;
  readonly scale?: number;
  /** With memory for rows in 16 bits, which matrix units take; all rows are in use then. */
  readonly isRounded?: boolean;
}

const shapes: readonly LinearShape[] = [
  { rows: 1, maxRows: 1, inputs: 8, outputs: 1, dtype: "bf16" },
  { rows: 1, maxRows: 1, inputs: 160, outputs: 512, dtype: "bf16" },
  { rows: 1, maxRows: 4, inputs: 2048, outputs: 67, dtype: "f16", scale: 0.5, isBiased: true },
  { rows: 2, maxRows: 8, inputs: 96, outputs: 33, dtype: "f32", mode: "accumulate" },
  { rows: 7, maxRows: 8, inputs: 1024, outputs: 70, dtype: "bf16", padding: 24, isBiased: true },
  { rows: 17, maxRows: 32, inputs: 2048, outputs: 257, dtype: "f16", mode: "accumulate" },
  { rows: 19, maxRows: 19, inputs: 64, outputs: 38, dtype: "f32", padding: 1 },
  { rows: 9, maxRows: 16, inputs: 40_000, outputs: 9, dtype: "bf16" },
  { rows: 0, maxRows: 16, inputs: 64, outputs: 9, dtype: "bf16" },
  { rows: 1, maxRows: 1, inputs: 2048, outputs: 10_944, dtype: "bf16" },
  { rows: 64, maxRows: 64, inputs: 1536, outputs: 1024, dtype: "bf16" },
  { rows: 131, maxRows: 256, inputs: 512, outputs: 1280, dtype: "f16" },
  { rows: 32, maxRows: 32, inputs: 64, outputs: 64, dtype: "bf16", isRounded: true },
  { rows: 130, maxRows: 130, inputs: 72, outputs: 136, dtype: "bf16", mode: "accumulate", isRounded: true },
  { rows: 256, maxRows: 256, inputs: 512, outputs: 576, dtype: "bf16", scale: 0.5, isRounded: true },
  { rows: 128, maxRows: 128, inputs: 160, outputs: 256, dtype: "bf16", mode: "accumulate", isRounded: true },
  { rows: 640, maxRows: 640, inputs: 64, outputs: 5120, dtype: "bf16", isRounded: true },
  { rows: 300, maxRows: 300, inputs: 104, outputs: 9728, dtype: "f16", mode: "accumulate", isRounded: true },
];

const nameOf = (shape: LinearShape) =>
  Object.entries(shape)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");

function makeInputs({ rows, inputs, outputs, dtype, scale = 1, mode, isBiased }: LinearShape) {
  const random = createRandom(rows * 1000 + inputs + outputs);
  const x = random.normals(rows * inputs);
  const weight = randomMatrix(random, { dtype, rows: outputs, columns: inputs });
  const bias = isBiased === true ? random.normals(outputs) : undefined;
  const before = random.normals(rows * outputs);
  const product = linearReference({ x, weight: weight.values, bias, inputs, outputs, scale });
  const expected = mode === "accumulate" ? product.map((value, i) => value + before[i]!) : product;
  return { x, weight, bias, before, expected };
}

async function run(memory: CaseMemory, shape: LinearShape, made: ReturnType<typeof makeInputs>) {
  const { rows, maxRows, inputs, outputs, mode = "store", padding = 0, scale = 1 } = shape;
  const xStride = inputs + padding;
  const strided = new Float32Array(maxRows * xStride).fill(Number.NaN);
  for (let row = 0; row < rows; row++) {
    strided.set(made.x.subarray(row * inputs, (row + 1) * inputs), row * xStride);
  }
  const before = mode === "accumulate" ? made.before : new Float32Array(0);
  const args = {
    ...{ xStride, mode, scale, maxRows },
    x: memory.upload("x", strided),
    weight: memory.uploadMatrix("weight", made.weight),
    bias: made.bias && memory.upload("bias", made.bias),
    out: memory.upload("out", before, maxRows * outputs * 4),
    rowCount: memory.uploadCount("rowCount", rows),
    ...(shape.isRounded === true ? { rounded: memory.reserve("rounded", maxRows * inputs * 2) } : {}),
  };
  await memory.run((launch) => linear(launch, args));
  return memory.readFloats(args.out);
}

function prepare(shape: LinearShape): PreparedCase {
  const made = makeInputs(shape);
  const { rows, inputs, outputs, scale = 1 } = shape;
  // A sum of n products of size 1/√n: the rounding errors of float32 grow with √n of its terms.
  const exact = 2e-6 * Math.max(1, Math.abs(scale)) * Math.max(4, Math.sqrt(inputs) / 8);
  // Inputs of size 1, a bf16 of them off by 2^-9 at most.
  const absolute = shape.isRounded === true ? 0.02 : exact;
  return {
    async check(memory): Promise<Finding[]> {
      const actual = await run(memory, shape, made);
      const compared = { output: "out", actual, width: outputs, liveRows: rows, expected: made.expected };
      return [compareRows({ ...compared, tolerance: { absolute, relative: 0 } })];
    },
  };
}

/** Cases of linear: every weight type, one row to 131, strides, biases, scales, store and accumulate. */
export function linearCases(): KernelCase[] {
  return shapes.map((shape) => ({
    ...{ kernel: "linear", isQuick: shape.outputs < 1000 },
    group: shape.isRounded === true ? "16-bit activations" : "all weight types",
    shape: nameOf(shape),
    prepare: () => prepare(shape),
  }));
}
