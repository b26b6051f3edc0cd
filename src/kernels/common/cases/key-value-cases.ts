import { decodeToF32, encodeFromF32 } from "../../../base/convert.ts";
import { createRandom, type Random } from "../../../base/random.ts";
import type { Launch } from "../../../device/device.ts";
import type { AttentionArguments, AttentionSizes } from "../attention-record.ts";
import { attentionRowReference, visiblePositions } from "../attention-reference.ts";
import type { KeyValueDtype } from "../key-value-cache.ts";
import type { CaseMemory } from "./case-memory.ts";
import { compareRows, sampleRows } from "./compare.ts";
import type { Finding, KernelCase, PreparedCase } from "./kernel-case.ts";
import { createNoise } from "./stored.ts";

/** The operation under test. */
export interface AttentionOperation {
  /** Its folder. */
  readonly kernel: string;
  readonly enqueue: (launch: Launch, args: AttentionArguments) => void;
  readonly workspaceBytes: (sizes: AttentionSizes) => number;
}

interface AttentionShape {
  readonly lengths: readonly number[];
  readonly sQ: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  readonly dtype: KeyValueDtype;
  readonly mask: "causal" | "full";
  readonly pageSize: number;
  readonly window: number | undefined;
}

type Row = readonly [
  lengths: readonly number[],
  sQ: number,
  heads: number,
  kvHeads: number,
  headWidth: number,
  dtype: KeyValueDtype,
  mask: "causal" | "full",
  pageSize: number,
  window?: number,
];

/** Every kind of cache, stored form, mask and window at lengths that are multiples of nothing. */
const rows: readonly Row[] = [
  [[1], 1, 1, 1, 16, "f32", "full", 64],
  [[20, 0, 33], 1, 3, 3, 64, "f16", "full", 64],
  [[600, 65, 1], 1, 9, 9, 128, "bf16", "causal", 64],
  [[4300], 1, 2, 2, 48, "bf16", "full", 16],
  [[97, 98], 1, 5, 5, 80, "f32", "causal", 1],
  [[300, 2], 3, 4, 4, 64, "bf16", "causal", 7],
  [[140, 65, 0], 1, 12, 3, 128, "bf16", "causal", 64],
  [[513], 2, 14, 2, 96, "f16", "causal", 16],
  [[70, 257], 1, 33, 1, 64, "bf16", "full", 64],
  [[640, 3, 129], 4, 20, 1, 128, "f32", "causal", 32],
  [[1100, 40, 0], 1, 4, 4, 64, "bf16", "causal", 64, 100],
  [[1100, 300], 3, 8, 2, 64, "f16", "causal", 16, 257],
  [[90, 700], 2, 6, 1, 32, "f32", "full", 5, 1],
  [[31], 4, 2, 2, 256, "bf16", "causal", 64, 4000],
  [[930, 530], 1, 2, 2, 64, "f16", "causal", 64, 700],
  [[290], 1, 2, 2, 64, "f32", "full", 64],
];

/** Multiply-adds of float64 that the truth of one case may take. */
const TRUTH_BUDGET = 5e6;
const LEAST_ROWS = 6;
const MOST_ROWS = 512;
/** Sequences recorded past those in use. */
const SPARE = 1;

function shuffled(random: Random, length: number): number[] {
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Pools of shuffled pages whose unused rows are NaN bytes, and a table whose unused entries are absurd. */
function makeCache(random: Random, shape: AttentionShape) {
  const { lengths, pageSize, kvHeads, headWidth, dtype } = shape;
  const maxLen = Math.max(1, ...lengths);
  const maxPages = Math.ceil(maxLen / pageSize) + 2;
  const counts = lengths.map((length) => Math.ceil(length / pageSize));
  const order = shuffled(random, counts.reduce((sum, count) => sum + count, 0) + 2);
  const pages = order.length;
  const blockTable = new Int32Array(lengths.length * maxPages).fill(2147480000);
  counts.forEach((count, b) => {
    blockTable.set(order.splice(0, count), b * maxPages);
  });
  const rowBytes = headWidth * (dtype === "f32" ? 4 : 2);
  const noise = createNoise(random, 1);
  const rowOf = (sequence: number, position: number, head: number) => {
    const page = blockTable[sequence * maxPages + Math.floor(position / pageSize)]!;
    return (page * kvHeads + head) * pageSize + (position % pageSize);
  };
  const makePool = () => {
    const bytes = new Uint8Array(pages * kvHeads * pageSize * rowBytes).fill(0xff);
    lengths.forEach((length, b) => {
      for (let t = 0; t < length; t++) {
        for (let head = 0; head < kvHeads; head++) {
          bytes.set(encodeFromF32(noise.window(random, headWidth), dtype), rowOf(b, t, head) * rowBytes);
        }
      }
    });
    const read = (sequence: number, position: number, head: number) => {
      const at = rowOf(sequence, position, head) * rowBytes;
      return decodeToF32(bytes.subarray(at, at + rowBytes), dtype);
    };
    return { bytes, read };
  };
  return { maxLen, maxPages, blockTable, keys: makePool(), values: makePool() };
}

type Cache = ReturnType<typeof makeCache>;

/** Float64 out and lse of `chosen` rows of [batch, sQ, heads]. */
function truthOf(
  shape: AttentionShape,
  cache: Cache,
  q: Float32Array,
  softmaxScale: number,
  chosen: readonly number[],
) {
  const { lengths, sQ, heads, kvHeads, headWidth } = shape;
  const out = new Float64Array(chosen.length * headWidth);
  const lse = new Float64Array(chosen.length);
  chosen.forEach((row, k) => {
    const [token, head] = [Math.floor(row / heads), row % heads];
    const [sequence, kvHead] = [Math.floor(token / sQ), Math.floor((head * kvHeads) / heads)];
    const { from, to } = visiblePositions({ ...shape, length: lengths[sequence]!, token: token % sQ });
    const positions = Array.from({ length: to - from }, (_, i) => from + i);
    const result = attentionRowReference({
      query: q.subarray(row * headWidth, (row + 1) * headWidth),
      keys: positions.map((t) => cache.keys.read(sequence, t, kvHead)),
      values: positions.map((t) => cache.values.read(sequence, t, kvHead)),
      softmaxScale,
    });
    out.set(result.out, k * headWidth);
    lse[k] = result.lse;
  });
  return { out, lse };
}

async function runOn(
  memory: CaseMemory,
  operation: AttentionOperation,
  shape: AttentionShape,
  cache: Cache,
  q: Float32Array,
  softmaxScale: number,
) {
  const { lengths, sQ, heads, headWidth, dtype, pageSize, mask } = shape;
  const { maxLen, maxPages } = cache;
  const batch = lengths.length + SPARE;
  const sizes = { ...shape, batch, maxLen };
  const out = memory.reserve("out", batch * sQ * heads * headWidth * 4);
  const lse = memory.reserve("lse", batch * sQ * heads * 4);
  const keys = memory.upload("keys", cache.keys.bytes);
  const values = memory.upload("values", cache.values.bytes);
  const args = {
    ...{ ...sizes, mask, maxPages, softmaxScale, out, lse },
    q: memory.upload("q", q, batch * sQ * heads * headWidth * 4),
    cache: { keys, values, dtype, pageSize },
    blockTable: memory.upload("blockTable", cache.blockTable, batch * maxPages * 4),
    cacheSeqlens: memory.upload("cacheSeqlens", Int32Array.from(lengths), batch * 4),
    workspace: memory.reserve("workspace", operation.workspaceBytes(sizes)),
    batchCount: memory.uploadCount("batchCount", lengths.length),
  };
  await memory.run((launch) => operation.enqueue(launch, args));
  return { out: await memory.readFloats(out), lse: await memory.readFloats(lse) };
}

function prepare(operation: AttentionOperation, shape: AttentionShape): PreparedCase {
  const { lengths, sQ, heads, headWidth } = shape;
  const random = createRandom(lengths.length * 1000 + heads * 10 + sQ);
  const cache = makeCache(random, shape);
  const liveRows = lengths.length * sQ * heads;
  const q = random.normals(liveRows * headWidth, 0.7);
  const softmaxScale = 2 * headWidth ** -0.5;
  const count = Math.floor(TRUTH_BUDGET / (2 * cache.maxLen * headWidth));
  const chosen = sampleRows(
    liveRows,
    Math.max(LEAST_ROWS, Math.min(MOST_ROWS, count)),
    createRandom(sQ).uniform,
  );
  const truth = truthOf(shape, cache, q, softmaxScale, chosen);
  const whereEmpty = (value: number) => (row: number) => {
    const [token, sequence] = [Math.floor(row / heads) % sQ, Math.floor(row / (heads * sQ))];
    return visiblePositions({ ...shape, length: lengths[sequence]!, token }).to === 0 ? value : null;
  };
  const tolerance = { absolute: 8e-6, relative: 8e-6 };
  const common = { liveRows, rows: chosen, tolerance };
  return {
    async check(memory): Promise<Finding[]> {
      const actual = await runOn(memory, operation, shape, cache, q, softmaxScale);
      return [
        compareRows({
          ...{ ...common, output: "out", actual: actual.out, expected: truth.out, width: headWidth },
          constantOf: whereEmpty(0),
        }),
        compareRows({
          ...{ ...common, output: "lse", actual: actual.lse, expected: truth.lse, width: 1 },
          constantOf: whereEmpty(Number.POSITIVE_INFINITY),
        }),
      ];
    },
  };
}

function caseOf(operation: AttentionOperation, row: Row): KernelCase {
  const [lengths, sQ, heads, kvHeads, headWidth, dtype, mask, pageSize, window] = row;
  const shape = { lengths, sQ, heads, kvHeads, headWidth, dtype, mask, pageSize, window };
  const kind = kvHeads === heads ? "multi-head" : kvHeads === 1 ? "multi-query" : "grouped-query";
  const suffix = window === undefined ? "" : ` window=${window}`;
  return {
    ...{ kernel: operation.kernel, group: window === undefined ? kind : "sliding window", isQuick: true },
    shape: `len=${lengths.join()} s_q=${sQ} h=${heads} h_kv=${kvHeads} d=${headWidth} page=${pageSize} ${dtype} ${mask}${suffix}`,
    prepare: () => prepare(operation, shape),
  };
}

/** The cases of `operation`: both forms of attention over keys and values are held to the same ones. */
export function keyValueCases(operation: AttentionOperation): KernelCase[] {
  return rows.map((row) => caseOf(operation, row));
}
