import { decodeToF32 } from "../../base/convert.ts";
import { createRandom } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { Finding, KernelCase, PreparedCase, Tolerance } from "../common/cases/kernel-case.ts";
import { type KeyValueDtype, keyValueTokenBytes } from "../common/key-value-cache.ts";
import { attentionPrologue } from "./attention-prologue.ts";
import { rotateReference } from "./reference.ts";

type Row = readonly [
  rows: number,
  heads: number,
  kvHeads: number,
  headWidth: number,
  dtype: KeyValueDtype,
  pageSize: number,
];

const shapes: readonly Row[] = [
  [1, 1, 1, 16, "f32", 4],
  [7, 6, 6, 64, "bf16", 16],
  [13, 12, 3, 128, "f16", 7],
  [3, 9, 1, 80, "bf16", 1],
];

const PAGES = 24;
const POSITIONS = 50;

/** A stored value may round to the neighbour of what float64 rounds to. */
const tolerances: Readonly<Record<KeyValueDtype, Tolerance>> = {
  f32: { absolute: 4e-6, relative: 4e-6 },
  f16: { absolute: 4e-6, relative: 2 ** -10, cosine: 1e-6 },
  bf16: { absolute: 4e-6, relative: 2 ** -7, cosine: 1e-5 },
};

function makeInputs([rows, heads, kvHeads, headWidth, , pageSize]: Row) {
  const random = createRandom(rows * 100 + heads);
  const half = headWidth / 2;
  const angles = Array.from({ length: POSITIONS }, (_, position) =>
    Array.from({ length: half }, (_, i) => position * 10000 ** (-i / half)),
  );
  const slots = Array.from({ length: rows }, (_, row) => (row * 5 + 2) % (PAGES * pageSize));
  if (rows > 2) slots[1] = -1;
  return {
    angles,
    slots,
    qkv: random.normals(rows * (heads + 2 * kvHeads) * headWidth),
    positions: Array.from({ length: rows }, () => random.integer(POSITIONS)),
  };
}

type Inputs = ReturnType<typeof makeInputs>;

function truthOf([rows, heads, kvHeads, headWidth]: Row, { qkv, positions, angles }: Inputs) {
  const q = new Float64Array(rows * heads * headWidth);
  const keys: Float64Array[][] = [];
  const values: Float32Array[][] = [];
  for (let row = 0; row < rows; row++) {
    const head = (index: number) => {
      const at = (row * (heads + 2 * kvHeads) + index) * headWidth;
      return qkv.subarray(at, at + headWidth);
    };
    const turn = angles[positions[row]!]!;
    for (let i = 0; i < heads; i++) q.set(rotateReference(head(i), turn), (row * heads + i) * headWidth);
    keys.push(Array.from({ length: kvHeads }, (_, i) => rotateReference(head(heads + i), turn)));
    values.push(Array.from({ length: kvHeads }, (_, i) => head(heads + kvHeads + i)));
  }
  return { q, keys, values };
}

async function runOn(memory: CaseMemory, shape: Row, inputs: Inputs) {
  const [rows, heads, kvHeads, headWidth, dtype, pageSize] = shape;
  const maxRows = rows + 2;
  const poolBytes = (PAGES * pageSize * keyValueTokenBytes(dtype, { kvHeads, headWidth })) / 2;
  const table = inputs.angles.flatMap((row) => [...row.map(Math.cos), ...row.map(Math.sin)]);
  const [keys, values] = ["keys", "values"].map((label) => memory.reserve(label, poolBytes));
  const qOut = memory.reserve("qOut", maxRows * heads * headWidth * 4);
  const args = {
    qkv: memory.upload("qkv", inputs.qkv, maxRows * (heads + 2 * kvHeads) * headWidth * 4),
    positions: memory.upload("positions", Int32Array.from(inputs.positions), maxRows * 4),
    rotaryTable: memory.upload("rotaryTable", Float32Array.from(table)),
    slots: memory.upload("slots", Int32Array.from(inputs.slots), maxRows * 4),
    cache: { keys: keys!, values: values!, dtype, pageSize },
    rowCount: memory.uploadCount("rowCount", rows),
    ...{ qOut, heads, kvHeads, headWidth, maxRows },
  };
  await memory.run((launch) => attentionPrologue(launch, args));
  const read = async (buffer: typeof qOut) =>
    new Uint8Array(await memory.device.read(buffer, 0, buffer.bytes));
  return { q: await memory.readFloats(qOut), keys: await read(keys!), values: await read(values!) };
}

/** Every pool row in the order of the pool: what was appended, and poison everywhere else. */
function comparePool(
  shape: Row,
  { slots }: Inputs,
  bytes: Uint8Array,
  truth: ArrayLike<number>[][],
  output: string,
) {
  const [, , kvHeads, headWidth, dtype, pageSize] = shape;
  const rowBytes = bytes.length / (PAGES * pageSize * kvHeads);
  const written = new Map<number, ArrayLike<number>>();
  slots.forEach((slot, row) => {
    if (slot < 0) return;
    truth[row]!.forEach((values, head) => {
      written.set((Math.floor(slot / pageSize) * kvHeads + head) * pageSize + (slot % pageSize), values);
    });
  });
  const rows = [...written.keys()].sort((a, b) => a - b);
  const actual = Float32Array.from(
    rows.flatMap((row) => [...decodeToF32(bytes.subarray(row * rowBytes, (row + 1) * rowBytes), dtype)]),
  );
  const expected = rows.flatMap((row) => Array.from(written.get(row)!));
  const tolerance = tolerances[dtype];
  const finding = compareRows({
    output,
    actual,
    width: headWidth,
    liveRows: rows.length,
    expected,
    tolerance,
  });
  const stray = bytes.findIndex((byte, i) => byte !== 0xff && !written.has(Math.floor(i / rowBytes)));
  return stray < 0
    ? finding
    : { ...finding, problem: `writes row ${Math.floor(stray / rowBytes)} of the pool` };
}

function prepare(shape: Row): PreparedCase {
  const [rows, heads, , headWidth] = shape;
  const inputs = makeInputs(shape);
  const truth = truthOf(shape, inputs);
  return {
    async check(memory): Promise<Finding[]> {
      const actual = await runOn(memory, shape, inputs);
      return [
        compareRows({
          ...{ output: "qOut", actual: actual.q, expected: truth.q, tolerance: tolerances.f32 },
          ...{ width: heads * headWidth, liveRows: rows },
        }),
        comparePool(shape, inputs, actual.keys, truth.keys, "keys"),
        comparePool(shape, inputs, actual.values, truth.values, "values"),
      ];
    },
  };
}

/** Cases of attention-prologue: every stored form, shared and own heads, a token that appends nothing. */
export function attentionPrologueCases(): KernelCase[] {
  return shapes.map((shape) => {
    const [rows, heads, kvHeads, headWidth, dtype, pageSize] = shape;
    return {
      ...{ kernel: "attention-prologue", group: `${dtype} cache`, isQuick: true },
      shape: `n=${rows} h=${heads} h_kv=${kvHeads} d=${headWidth} page=${pageSize} ${dtype}`,
      prepare: () => prepare(shape),
    };
  });
}
