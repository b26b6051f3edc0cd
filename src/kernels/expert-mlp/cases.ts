import type { WeightDType } from "../../base/dtypes.ts";
import { createRandom, type Random } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { KernelCase, PreparedCase } from "../common/cases/kernel-case.ts";
import { randomMatrix, type StoredMatrix } from "../common/cases/stored.ts";
import { type ExpertGateUp, expertMlp, expertMlpWorkspaceBytes } from "./expert-mlp.ts";
import { expertMlpReference } from "./reference.ts";

type Row = readonly [
  rows: number,
  experts: number,
  perToken: number,
  hidden: number,
  intermediate: number,
  dtype: WeightDType,
  layout: "separate" | "fused",
  mode: "store" | "accumulate",
  scale: number,
];

const rows: readonly Row[] = [
  [1, 8, 2, 64, 24, "bf16", "separate", "store", 1],
  [2, 4, 4, 40, 16, "f16", "separate", "accumulate", 0.5],
  [33, 16, 3, 72, 40, "bf16", "fused", "accumulate", 2],
  [9, 64, 6, 32, 8, "f32", "fused", "store", 1],
  [5, 1, 1, 8, 16, "bf16", "separate", "store", 1],
  [21, 32, 4, 1024, 256, "bf16", "separate", "store", 1],
];

/** `perToken` distinct experts for each row. */
function chooseExperts(random: Random, rowCount: number, experts: number, perToken: number): Int32Array {
  const choices = Array.from({ length: rowCount }, () => {
    const keys = Array.from({ length: experts }, (_, expert) => ({ expert, key: random.uniform() }));
    return keys.sort((a, b) => a.key - b.key).slice(0, perToken);
  });
  return Int32Array.from(choices.flat(), ({ expert }) => expert);
}

function makeInputs([rowCount, experts, perToken, hidden, intermediate, dtype, , mode, scale]: Row) {
  const random = createRandom(rowCount * 100 + experts);
  const wide = { dtype, rows: experts * intermediate, columns: hidden };
  const x = random.normals(rowCount * hidden);
  const ids = chooseExperts(random, rowCount, experts, perToken);
  const weights = Float32Array.from({ length: rowCount * perToken }, () => random.uniform());
  const gate = randomMatrix(random, wide);
  const up = randomMatrix(random, wide);
  const down = randomMatrix(random, { dtype, rows: experts * hidden, columns: intermediate });
  const before = random.normals(rowCount * hidden);
  const values = { gate: gate.values, up: up.values, down: down.values };
  const product = expertMlpReference({ x, ids, weights, ...values, hidden, intermediate });
  const start = (i: number) => (mode === "accumulate" ? before[i]! : 0);
  const expected = product.map((value, i) => start(i) + scale * value);
  return { x, ids, weights, gate, up, down, before, expected };
}

/** Every expert's gate before its up, in one matrix. */
function fuse(gate: StoredMatrix, up: StoredMatrix, experts: number): StoredMatrix {
  const share = gate.bytes.length / experts;
  const bytes = new Uint8Array(2 * gate.bytes.length);
  for (let expert = 0; expert < experts; expert++) {
    bytes.set(gate.bytes.subarray(expert * share, (expert + 1) * share), 2 * expert * share);
    bytes.set(up.bytes.subarray(expert * share, (expert + 1) * share), (2 * expert + 1) * share);
  }
  return { ...gate, rows: 2 * gate.rows, bytes };
}

async function run(memory: CaseMemory, row: Row, made: ReturnType<typeof makeInputs>) {
  const [rowCount, experts, perToken, hidden, intermediate, , layout, mode, scale] = row;
  const shape = { maxRows: rowCount + 1, experts, perToken, hidden, intermediate };
  const gateUp: ExpertGateUp =
    layout === "fused"
      ? { layout, gateUp: memory.uploadMatrix("gateUp", fuse(made.gate, made.up, experts)) }
      : { layout, gate: memory.uploadMatrix("gate", made.gate), up: memory.uploadMatrix("up", made.up) };
  const choiceBytes = shape.maxRows * perToken * 4;
  const before = mode === "accumulate" ? made.before : new Float32Array(0);
  const args = {
    ...{ ...shape, gateUp, mode, scale },
    x: memory.upload("x", made.x, shape.maxRows * hidden * 4),
    expertIds: memory.upload("expertIds", made.ids, choiceBytes),
    expertWeights: memory.upload("expertWeights", made.weights, choiceBytes),
    down: memory.uploadMatrix("down", made.down),
    out: memory.upload("out", before, shape.maxRows * hidden * 4),
    workspace: memory.reserve("workspace", expertMlpWorkspaceBytes(shape)),
    rowCount: memory.uploadCount("rowCount", rowCount),
  };
  await memory.run((launch) => expertMlp(launch, args));
  return memory.readFloats(args.out);
}

function prepare(row: Row): PreparedCase {
  const made = makeInputs(row);
  return {
    async check(memory) {
      const actual = await run(memory, row, made);
      const compared = { output: "out", actual, width: row[3], liveRows: row[0], expected: made.expected };
      return [compareRows({ ...compared, tolerance: { absolute: 1e-5, relative: 0 } })];
    },
  };
}

/** Cases of expert-mlp: every weight type, both layouts, store and accumulate, one expert and 64. */
export function expertMlpCases(): KernelCase[] {
  return rows.map((row) => ({
    ...{ kernel: "expert-mlp", group: "all weight types", isQuick: row[3] < 1024 },
    shape: `n=${row[0]} experts=${row[1]}/${row[2]} hidden=${row[3]} intermediate=${row[4]} ${row.slice(5).join(" ")}`,
    prepare: () => prepare(row),
  }));
}
