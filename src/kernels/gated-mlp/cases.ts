import type { WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { KernelCase, PreparedCase } from "../common/cases/kernel-case.ts";
import { randomMatrix } from "../common/cases/stored.ts";
import { gatedMlp } from "./gated-mlp.ts";
import { gatedMlpReference } from "./reference.ts";

type Row = readonly [
  rows: number,
  maxRows: number,
  hidden: number,
  intermediate: number,
  dtype: WeightDType,
  mode: "store" | "accumulate",
  scale: number,
  /** With memory for rows in 16 bits, which matrix units take; all rows are in use then. */
  isRounded?: boolean,
];

const rows: readonly Row[] = [
  [1, 1, 128, 320, "bf16", "store", 1],
  [1, 4, 520, 72, "f16", "accumulate", 0.3],
  [5, 8, 160, 256, "bf16", "accumulate", 1],
  [21, 64, 1024, 200, "bf16", "store", 2],
  [12, 12, 64, 40, "f32", "store", 1],
  [0, 2, 8, 8, "bf16", "store", 1],
  [3, 4, 2048, 1408, "bf16", "accumulate", 1],
  [130, 130, 256, 192, "bf16", "store", 1, true],
  [128, 128, 256, 320, "bf16", "accumulate", 0.5, true],
  [40, 40, 64, 128, "f16", "store", 1, true],
  [330, 330, 128, 200, "bf16", "accumulate", 1, true],
];

function makeInputs([rowCount, , hidden, intermediate, dtype, mode, scale]: Row) {
  const random = createRandom(rowCount * 1000 + hidden);
  const wide = { dtype, rows: intermediate, columns: hidden };
  const x = random.normals(rowCount * hidden);
  // Gates of a few units reach both ends of silu.
  const gate = randomMatrix(random, wide, 6 * hidden ** -0.5);
  const up = randomMatrix(random, wide);
  const down = randomMatrix(random, { dtype, rows: hidden, columns: intermediate });
  const before = random.normals(rowCount * hidden);
  const values = { gate: gate.values, up: up.values, down: down.values };
  const product = gatedMlpReference({ x, ...values, hidden, intermediate });
  const start = (i: number) => (mode === "accumulate" ? before[i]! : 0);
  const expected = product.map((value, i) => start(i) + scale * value);
  return { x, gate, up, down, before, expected };
}

async function run(memory: CaseMemory, row: Row, made: ReturnType<typeof makeInputs>) {
  const [rowCount, maxRows, hidden, intermediate, , mode, scale, isRounded] = row;
  const before = mode === "accumulate" ? made.before : new Float32Array(0);
  const args = {
    ...{ maxRows, mode, scale },
    x: memory.upload("x", made.x, maxRows * hidden * 4),
    gate: memory.uploadMatrix("gate", made.gate),
    up: memory.uploadMatrix("up", made.up),
    down: memory.uploadMatrix("down", made.down),
    out: memory.upload("out", before, maxRows * hidden * 4),
    workspace: memory.reserve("workspace", maxRows * intermediate * 4),
    rowCount: memory.uploadCount("rowCount", rowCount),
    ...(isRounded === true
      ? { rounded: memory.reserve("rounded", 2 * maxRows * (hidden + 2 * intermediate)) }
      : {}),
  };
  await memory.run((launch) => gatedMlp(launch, args));
  return memory.readFloats(args.out);
}

function prepare(row: Row): PreparedCase {
  const made = makeInputs(row);
  // Results of a few units; gates of six, of which bf16 loses 2^-9.
  const absolute = row[7] === true ? 0.2 : 3e-5;
  return {
    async check(memory) {
      const actual = await run(memory, row, made);
      const compared = { output: "out", actual, width: row[2], liveRows: row[0], expected: made.expected };
      return [compareRows({ ...compared, tolerance: { absolute, relative: 0 } })];
    },
  };
}

/** Cases of gated-mlp: every weight type, one row to 21, store and accumulate. */
export function gatedMlpCases(): KernelCase[] {
  return rows.map((row) => ({
    ...{ kernel: "gated-mlp", isQuick: row[2] < 2048 },
    group: row[7] === true ? "16-bit activations" : "all weight types",
    shape: `n=${row[0]} of ${row[1]} hidden=${row[2]} intermediate=${row[3]} ${row[4]} ${row[5]} scale=${row[6]}`,
    prepare: () => prepare(row),
  }));
}
