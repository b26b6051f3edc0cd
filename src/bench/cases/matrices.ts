import { decodeToF32 } from "../../base/convert.ts";
import type { WeightDType } from "../../base/dtypes.ts";
import { gatedMlp, gatedMlpCost } from "../../kernels/gated-mlp/gated-mlp.ts";
import { gatedMlpReference } from "../../kernels/gated-mlp/reference.ts";
import { linear, linearCost } from "../../kernels/linear/linear.ts";
import { linearReference } from "../../kernels/linear/reference.ts";
import { type BenchCase, type BenchMemory, normals, storedNormals, worstErrorOf } from "../case.ts";

interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly dtype: WeightDType;
}

function uploadMatrix(memory: BenchMemory, matrix: Matrix, seed: number, copies: number, label: string) {
  const { rows, columns, dtype } = matrix;
  const stored = storedNormals(rows * columns, seed, columns ** -0.5, dtype);
  const weights = memory
    .uploadCopies(stored, copies, label)
    .map((buffer) => ({ buffer, dtype, rows, columns }));
  return { weights, values: () => decodeToF32(stored, dtype) };
}

/**
 * x [rows, inputs] · Wᵀ; the last row is checked. `isRounded` lets a GPU round x to 16 bits first, as models do for many rows.
 */
export function linearCase(shape: {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly dtype: WeightDType;
  readonly isRounded?: boolean;
}): BenchCase {
  const { rows, inputs, outputs, dtype, isRounded = false } = shape;
  const matrix = { rows: outputs, columns: inputs, dtype };
  return {
    name: `linear m=${rows} k=${inputs} n=${outputs} ${dtype}`,
    cost: linearCost(rows, matrix),
    tolerance: isRounded ? 2e-2 : 2e-5,
    prepare(memory, copies) {
      const xValues = normals(rows * inputs, 1);
      const x = memory.upload(xValues, "x");
      const out = memory.allocate(rows * outputs * 4, "out");
      const rowCount = memory.upload(new Int32Array([rows]), "rowCount");
      const { weights, values } = uploadMatrix(memory, matrix, 2, copies, "weight");
      const rounded = isRounded ? memory.allocate(rows * inputs * 2, "rounded") : undefined;
      const shared = { x, out, rounded, mode: "store", rowCount, maxRows: rows } as const;
      return {
        enqueue: (launch, copy) => linear(launch, { ...shared, weight: weights[copy]! }),
        async worstError() {
          const last = xValues.subarray((rows - 1) * inputs);
          const actual = await memory.readFloats(out, rows * outputs);
          const expected = linearReference({ x: last, weight: values(), inputs, outputs });
          return worstErrorOf(actual.subarray((rows - 1) * outputs), expected);
        },
      };
    },
  };
}

/** silu(x · gateᵀ) · (x · upᵀ) · downᵀ; the last row is checked. */
export function gatedMlpCase(shape: {
  readonly rows: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly dtype: WeightDType;
}): BenchCase {
  const { rows, hidden, intermediate, dtype } = shape;
  const inner = { rows: intermediate, columns: hidden, dtype };
  const outer = { rows: hidden, columns: intermediate, dtype };
  return {
    name: `gated-mlp m=${rows} hidden=${hidden} intermediate=${intermediate} ${dtype}`,
    cost: gatedMlpCost(rows, { gate: inner, up: inner, down: outer }),
    tolerance: 3e-5,
    prepare(memory, copies) {
      const xValues = normals(rows * hidden, 1);
      const x = memory.upload(xValues, "x");
      const out = memory.allocate(rows * hidden * 4, "out");
      const workspace = memory.allocate(rows * intermediate * 4, "workspace");
      const rowCount = memory.upload(new Int32Array([rows]), "rowCount");
      const gate = uploadMatrix(memory, inner, 2, copies, "gate");
      const up = uploadMatrix(memory, inner, 3, copies, "up");
      const down = uploadMatrix(memory, outer, 4, copies, "down");
      const shared = { x, out, workspace, mode: "store", rowCount, maxRows: rows } as const;
      return {
        enqueue(launch, copy) {
          const weights = { gate: gate.weights[copy]!, up: up.weights[copy]!, down: down.weights[copy]! };
          gatedMlp(launch, { ...shared, ...weights });
        },
        async worstError() {
          const last = xValues.subarray((rows - 1) * hidden);
          const values = { gate: gate.values(), up: up.values(), down: down.values() };
          const expected = gatedMlpReference({ x: last, ...values, hidden, intermediate });
          const actual = await memory.readFloats(out, rows * hidden);
          return worstErrorOf(actual.subarray((rows - 1) * hidden), expected);
        },
      };
    },
  };
}
