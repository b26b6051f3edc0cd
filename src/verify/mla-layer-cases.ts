import { bytesPerElement } from "../base/dtypes.ts";
import { createRandom, type Random } from "../base/random.ts";
import type { CaseMemory } from "../kernels/common/cases/case-memory.ts";
import { compareRows } from "../kernels/common/cases/compare.ts";
import type { KernelCase, PreparedCase } from "../kernels/common/cases/kernel-case.ts";
import {
  createPagedCache,
  decodeLatentEntry,
  encodeLatentEntry,
  type PagedCache,
} from "../kernels/common/cases/paged-cache.ts";
import { createNoise, randomMatrix, type StoredMatrix } from "../kernels/common/cases/stored.ts";
import { mlaDecodeWorkspaceBytes } from "../kernels/common/mla-partials.ts";
import { queryDtypeOn } from "../kernels/mla-decode/mla-decode.cuda.ts";
import { mlaRowReference, visibleSlots } from "../kernels/mla-decode/reference.ts";
import { mlaPrologueReference } from "../kernels/mla-prologue/reference.ts";
import { latentDecode } from "../models/latent-decode.ts";

type Row = readonly [
  lengths: readonly number[],
  heads: number,
  pageSize: number,
  rotary: "interleaved" | "halves",
  /** Of weights, and of a cache and queries in 16 bits. */
  dtype: "f16" | "bf16",
  queryScale?: "scaled",
];

const shapes: readonly Row[] = [
  [[1], 128, 64, "interleaved", "bf16"],
  [[400], 128, 64, "interleaved", "bf16"],
  [[600, 0, 64], 64, 128, "halves", "f16", "scaled"],
  [[65, 1, 3, 300, 128, 0], 65, 64, "halves", "bf16", "scaled"],
  [[130, 5, 64, 65], 96, 64, "interleaved", "f16"],
  [[300, 17], 3, 64, "interleaved", "bf16"],
];

const widths = { latentWidth: 512, ropeWidth: 64, nopeWidth: 128, valueWidth: 128 } as const;
const WIDTH = widths.latentWidth + widths.ropeWidth;
const QUERY = widths.nopeWidth + widths.ropeWidth;
const KV_ROWS = widths.nopeWidth + widths.valueWidth;
const POSITIONS = 40;
const EPSILON = 1e-6;
const SCALE = QUERY ** -0.5;

/** Of the largest value: queries, probabilities and results between the stages are rounded to 16 bits. */
const part16 = { f16: 4e-3, bf16: 3e-2 } as const;

/** The slot of each sequence's last token; −1 where there is none. */
function lastSlots({ lengths, blockTable, maxPages, pageSize }: PagedCache): Int32Array {
  return Int32Array.from(lengths, (length, b) => {
    if (length === 0) return -1;
    const last = length - 1;
    return blockTable[b * maxPages + Math.floor(last / pageSize)]! * pageSize + (last % pageSize);
  });
}

function makeInputs([lengths, heads, pageSize, rotary, dtype, scaled]: Row) {
  const random = createRandom(lengths.length * 1000 + heads);
  const rows = lengths.length;
  const noise = createNoise(random, 1);
  const cache = createPagedCache(random, { lengths, ...widths, dtype, pageSize, noise });
  const kvB = randomMatrix(random, { dtype, rows: heads * KV_ROWS, columns: widths.latentWidth }, 0.1);
  const data = {
    q: random.normals(rows * heads * QUERY),
    latent: random.normals(rows * WIDTH),
    normWeight: random.normals(widths.latentWidth),
    positions: Int32Array.from({ length: rows }, () => random.integer(POSITIONS)),
    rotaryTable: random.normals(POSITIONS * widths.ropeWidth),
    queryScale: scaled === undefined ? null : positive(random),
  };
  return { rows, heads, rotary, dtype, cache, kvB, data, slots: lastSlots(cache) };
}

function positive(random: Random): Float32Array {
  return random.normals(POSITIONS).map((value) => 1 + Math.abs(value) / 4);
}

type Inputs = ReturnType<typeof makeInputs>;

/** Float64 out [rows, heads, d_v]; the new entries are rounded as they are stored. */
function truthOf({ rows, heads, rotary, cache, kvB, data, slots }: Inputs): Float64Array {
  const { entries, queries } = mlaPrologueReference({
    ...{ ...widths, ...data, rows, heads, rotary, phase: "decode", epsilon: EPSILON, kvB: kvB.values },
  });
  const appended = new Map<number, Float32Array>();
  slots.forEach((slot, row) => {
    if (slot < 0) return;
    const stored = encodeLatentEntry(Float32Array.from(entries[row]!), cache.dtype, widths);
    appended.set(slot, decodeLatentEntry(stored, cache.dtype, widths));
  });
  const expected = new Float64Array(rows * heads * widths.valueWidth);
  for (let row = 0; row < rows; row++) {
    const blockTable = cache.blockTable.subarray(row * cache.maxPages);
    const length = cache.lengths[row]!;
    const seen = visibleSlots({ blockTable, length, pageSize: cache.pageSize, hidden: 0 });
    const tokens = seen.map((slot) => appended.get(slot) ?? cache.entry(slot));
    for (let head = 0; head < heads; head++) {
      const query = queries[row]![head]!;
      const { out } = mlaRowReference({
        ...{ query, tokens, latentWidth: widths.latentWidth, softmaxScale: SCALE },
      });
      expected.set(project(kvB, head, out), (row * heads + head) * widths.valueWidth);
    }
  }
  return expected;
}

/** W_UV of a head times its attention's result. */
function project({ values, columns }: StoredMatrix, head: number, attended: Float64Array): Float64Array {
  return Float64Array.from({ length: widths.valueWidth }, (_, v) => {
    const row = (head * KV_ROWS + widths.nopeWidth + v) * columns;
    return attended.reduce((sum, value, c) => sum + value * values[row + c]!, 0);
  });
}

/** Runs the layer as models do, over two rows more than are in use. */
async function run(memory: CaseMemory, made: Inputs): Promise<Float32Array> {
  const { rows, heads, rotary, cache, data, slots, kvB } = made;
  const maxRows = rows + 2;
  const dtype = queryDtypeOn(memory.device.kind, made.dtype);
  const bytes = bytesPerElement(dtype);
  const sizes = { batch: maxRows, sQ: 1, heads, ...widths, maxLen: cache.maxLen };
  const out = memory.reserve("out", maxRows * heads * widths.valueWidth * 4);
  const attended = () => memory.reserve("attended", maxRows * heads * widths.latentWidth * bytes);
  const args = {
    ...{ ...sizes, maxRows, rotary, epsilon: EPSILON, softmaxScale: SCALE, out, dtype },
    q: memory.upload("q", data.q, maxRows * heads * QUERY * 4),
    latent: memory.upload("latent", data.latent, maxRows * WIDTH * 4),
    normWeight: memory.upload("normWeight", data.normWeight),
    kvB: memory.uploadMatrix("kvB", kvB),
    positions: memory.upload("positions", data.positions, maxRows * 4),
    rotaryTable: memory.upload("rotaryTable", data.rotaryTable),
    queryScale: data.queryScale && memory.upload("queryScale", data.queryScale),
    slots: memory.upload("slots", slots, maxRows * 4),
    rowCount: memory.uploadCount("rowCount", rows),
    cache: { buffer: memory.upload("cache", cache.bytes), dtype: cache.dtype, pageSize: cache.pageSize },
    blockTable: memory.upload("blockTable", cache.blockTable, maxRows * cache.maxPages * 4),
    maxPages: cache.maxPages,
    cacheSeqlens: memory.upload("cacheSeqlens", Int32Array.from(cache.lengths), maxRows * 4),
    absorbed: memory.reserve("absorbed", maxRows * heads * WIDTH * bytes),
    workspace: memory.reserve("workspace", mlaDecodeWorkspaceBytes(sizes)),
    merged:
      dtype === "f32" ? null : { attended: attended(), lse: memory.reserve("lse", maxRows * heads * 4) },
  };
  await memory.run((launch) => latentDecode(launch, args));
  return memory.readFloats(out);
}

function prepare(row: Row): PreparedCase {
  const made = makeInputs(row);
  const expected = truthOf(made);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return {
    async check(memory) {
      const isRounded = queryDtypeOn(memory.device.kind, made.dtype) !== "f32";
      const tolerance = { absolute: (isRounded ? part16[made.dtype] : 2e-4) * largest, relative: 0 };
      const actual = await run(memory, made);
      const { rows, heads } = made;
      const compared = { actual, width: widths.valueWidth, liveRows: rows * heads, expected, tolerance };
      return [compareRows({ output: "out", ...compared })];
    },
  };
}

/**
 * Cases of a whole layer's attention for single tokens, against float64: in one launch where a device has that, in the
 * stages that models run elsewhere.
 */
export function mlaLayerCases(): KernelCase[] {
  return shapes.map((row) => ({
    ...{ kernel: "mla-layer", group: "whole layer", isQuick: row[0].length < 3 && row[0][0]! < 800 },
    shape: `len=${row[0].join()} h=${row[1]} page=${row[2]} ${row.slice(3).join(" ")}`,
    prepare: () => prepare(row),
  }));
}
