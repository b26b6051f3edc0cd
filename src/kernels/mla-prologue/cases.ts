import { decodeToF32 } from "../../base/convert.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { Finding, KernelCase, PreparedCase, Tolerance } from "../common/cases/kernel-case.ts";
import { decodeLatentEntry, encodeLatentEntry } from "../common/cases/paged-cache.ts";
import { randomMatrix } from "../common/cases/stored.ts";
import { type LatentDtype, latentEntryBytes } from "../common/latent-cache.ts";
import { mlaPrologue } from "./mla-prologue.ts";
import { mlaPrologueReference } from "./reference.ts";

type Row = readonly [
  phase: "decode" | "prefill",
  rows: number,
  heads: number,
  widths: readonly [latent: number, rope: number, nope: number, value: number],
  rotary: "interleaved" | "halves",
  weightDtype: "f32" | "f16" | "bf16",
  cacheDtype: LatentDtype,
  queryScale: "scaled" | "unscaled",
  /** Element type in which the queries leave where the device writes 16 bits; default f32. */
  queryDtype?: WeightDType,
];

const deepseek = [512, 64, 128, 128] as const;
const minicpm = [256, 32, 64, 64] as const;
const glm = [512, 64, 192, 256] as const;
const mistral = [256, 64, 64, 128] as const;

const shapes: readonly Row[] = [
  ["decode", 1, 3, deepseek, "interleaved", "bf16", "f32", "unscaled"],
  ["decode", 5, 2, minicpm, "halves", "f16", "f32", "unscaled"],
  ["decode", 19, 2, mistral, "halves", "f32", "f32", "scaled"],
  ["decode", 33, 20, glm, "interleaved", "bf16", "bf16", "unscaled"],
  ["decode", 12, 16, deepseek, "interleaved", "bf16", "fp8", "unscaled"],
  ["prefill", 9, 3, mistral, "interleaved", "bf16", "f32", "scaled"],
  ["prefill", 33, 2, minicpm, "halves", "bf16", "f16", "unscaled"],
  ["decode", 7, 3, minicpm, "halves", "bf16", "fp8", "unscaled"],
  ["prefill", 40, 4, deepseek, "interleaved", "bf16", "fp8", "unscaled"],
  ["decode", 1, 5, deepseek, "interleaved", "bf16", "bf16", "unscaled", "bf16"],
  ["decode", 9, 3, mistral, "halves", "bf16", "bf16", "scaled", "bf16"],
  ["decode", 35, 2, glm, "interleaved", "f16", "f16", "unscaled", "f16"],
  ["decode", 3, 2, minicpm, "halves", "f32", "bf16", "unscaled", "bf16"],
  ["prefill", 21, 3, deepseek, "interleaved", "bf16", "bf16", "scaled", "bf16"],
];

/** Queries and weights of the product rounded to 16 bits: by the part of the largest query that an error may be. */
const tolerances16: Readonly<Record<WeightDType, { readonly part: number; readonly cosine: number }>> = {
  f32: { part: 2e-6, cosine: 1e-9 },
  f16: { part: 8e-4, cosine: 1e-6 },
  bf16: { part: 6e-3, cosine: 2e-5 },
};

const PAGE = 16;
const PAGES = 3;
const POSITIONS = 40;
const EPSILON = 1e-6;

/** An entry may round to the neighbour of what float64 rounds to: one step of its stored form, and few of them do. */
const entryTolerances: Readonly<Record<LatentDtype, Tolerance>> = {
  f32: { absolute: 8e-6, relative: 4e-6 },
  f16: { absolute: 8e-6, relative: 2 ** -10, cosine: 1e-7 },
  bf16: { absolute: 8e-6, relative: 2 ** -7, cosine: 1e-6 },
  fp8: { absolute: 2 ** -14, relative: 2 ** -3, cosine: 1e-5 },
};

function makeInputs([phase, rows, heads, widths, rotary, weightDtype, , scaled]: Row) {
  const [latentWidth, ropeWidth, nopeWidth, valueWidth] = widths;
  const random = createRandom(rows * 100 + heads);
  const kvRows = heads * (nopeWidth + valueWidth);
  const weights = randomMatrix(random, { dtype: weightDtype, rows: kvRows, columns: latentWidth }, 0.1);
  const data = {
    q: random.normals(rows * heads * (nopeWidth + ropeWidth)),
    latent: random.normals(rows * (latentWidth + ropeWidth)),
    normWeight: random.normals(latentWidth),
    positions: Int32Array.from({ length: rows }, () => random.integer(POSITIONS)),
    rotaryTable: random.normals(POSITIONS * ropeWidth),
    queryScale: scaled === "scaled" ? random.normals(POSITIONS) : null,
  };
  // 7 and the number of slots share no factor, so no two rows get the same slot; every fourth appends nothing.
  const slots = Array.from({ length: rows }, (_, row) =>
    row % 4 === 3 ? -1 : (row * 7 + 5) % (PAGE * PAGES),
  );
  const sizes = { rows, heads, nopeWidth, ropeWidth, valueWidth, latentWidth, phase, rotary };
  const expected = mlaPrologueReference({ ...data, ...sizes, epsilon: EPSILON, kvB: weights.values });
  return { data, weights, slots, expected, sizes };
}

type Inputs = ReturnType<typeof makeInputs>;

async function run(
  memory: CaseMemory,
  cacheDtype: LatentDtype,
  qOutDtype: WeightDType,
  { data, weights, slots, sizes }: Inputs,
) {
  const { rows, heads, nopeWidth, ropeWidth, latentWidth, phase } = sizes;
  const maxRows = rows + 2;
  const q = memory.upload("q", data.q, maxRows * heads * (nopeWidth + ropeWidth) * 4);
  const outWidth = (phase === "decode" ? latentWidth : nopeWidth) + ropeWidth;
  const outBytes = maxRows * heads * outWidth * bytesPerElement(qOutDtype);
  const qOut = phase === "decode" || qOutDtype !== "f32" ? memory.reserve("qOut", outBytes) : q;
  const entryBytes = latentEntryBytes(cacheDtype, sizes);
  const pool = memory.reserve("cache", PAGE * PAGES * entryBytes);
  const args = {
    ...{ ...sizes, epsilon: EPSILON, maxRows, q, qOut, qOutDtype },
    latent: memory.upload("latent", data.latent, maxRows * (latentWidth + ropeWidth) * 4),
    normWeight: memory.upload("normWeight", data.normWeight),
    kvB: memory.uploadMatrix("kvB", weights),
    positions: memory.upload("positions", data.positions, maxRows * 4),
    rotaryTable: memory.upload("rotaryTable", data.rotaryTable),
    queryScale: data.queryScale && memory.upload("queryScale", data.queryScale),
    slots: memory.upload("slots", Int32Array.from(slots), maxRows * 4),
    cache: { buffer: pool, dtype: cacheDtype, pageSize: PAGE },
    rowCount: memory.uploadCount("rowCount", rows),
  };
  await memory.run((launch) => mlaPrologue(launch, args));
  const stored = new Uint8Array(await memory.device.read(pool, 0, pool.bytes));
  const queries = decodeToF32(new Uint8Array(await memory.device.read(qOut, 0, qOut.bytes)), qOutDtype);
  return { queries, stored, entryBytes };
}

/** The appended entries as rows of values, and a problem if any other slot was written. */
function judgeEntries(stored: Uint8Array, entryBytes: number, dtype: LatentDtype, made: Inputs): Finding {
  const { latentWidth, ropeWidth } = made.sizes;
  const width = latentWidth + ropeWidth;
  const appended = made.slots.flatMap((slot, row) => (slot < 0 ? [] : [{ slot, row }]));
  const actual = new Float32Array(appended.length * width);
  const expected = new Float64Array(appended.length * width);
  const at = (slot: number) => stored.subarray(slot * entryBytes, (slot + 1) * entryBytes);
  appended.forEach(({ slot, row }, k) => {
    actual.set(decodeLatentEntry(at(slot), dtype, made.sizes), k * width);
    const truth = made.expected.entries[row]!;
    if (dtype === "f32") expected.set(truth, k * width);
    else {
      const rounded = encodeLatentEntry(Float32Array.from(truth), dtype, made.sizes);
      expected.set(decodeLatentEntry(rounded, dtype, made.sizes), k * width);
    }
  });
  const tolerance = entryTolerances[dtype];
  const finding = compareRows({
    ...{ output: `${dtype} entries`, actual, width, liveRows: appended.length, expected, tolerance },
  });
  const untouched = Array.from({ length: PAGE * PAGES }, (_, slot) => slot).filter(
    (slot) => !made.slots.includes(slot),
  );
  const written = untouched.find((slot) => at(slot).some((byte) => byte !== 0xff));
  if (written === undefined || finding.problem !== null) return finding;
  return { ...finding, problem: `writes slot ${written}, which no row names` };
}

function prepare(row: Row): PreparedCase {
  const made = makeInputs(row);
  const { phase, rows, heads, nopeWidth, ropeWidth, latentWidth } = made.sizes;
  const width = (phase === "decode" ? latentWidth : nopeWidth) + ropeWidth;
  const expected = made.expected.queries.flat(2);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
  return {
    async check(memory) {
      const dtype = (memory.device.kind === "cuda" ? row[8] : undefined) ?? "f32";
      const { queries, stored, entryBytes } = await run(memory, row[6], dtype, made);
      const { part, cosine } = tolerances16[dtype];
      const tolerance = { absolute: part * largest, relative: 0, cosine };
      const output = dtype === "f32" ? "queries" : `${dtype} queries`;
      const compared = {
        ...{ output, actual: queries, storedAs: dtype, width, liveRows: rows * heads, expected },
      };
      return [compareRows({ ...compared, tolerance }), judgeEntries(stored, entryBytes, row[6], made)];
    },
  };
}

/** Cases of mla-prologue: the widths of the model types, both phases and rotary layouts, every stored form. */
export function mlaPrologueCases(): KernelCase[] {
  return shapes.map((row) => ({
    ...{ kernel: "mla-prologue", group: row[0], isQuick: row[1] * row[2] < 300 },
    shape: `n=${row[1]} h=${row[2]} ${row[3].join("+")} ${row.slice(4).join(" ")}`,
    prepare: () => prepare(row),
  }));
}
