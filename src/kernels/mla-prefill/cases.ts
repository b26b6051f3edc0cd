import { decodeToF32, encodeFromF32 } from "../../base/convert.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import { createRandom } from "../../base/random.ts";
import type { DeviceKind } from "../../device/device.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { KernelCase, PreparedCase, Tolerance } from "../common/cases/kernel-case.ts";
import { createPagedCache } from "../common/cases/paged-cache.ts";
import { createNoise, randomMatrix } from "../common/cases/stored.ts";
import type { LatentDtype } from "../common/latent-cache.ts";
import { mlaPrefill } from "./mla-prefill.ts";
import { prefillSubgroups } from "./mla-prefill.webgpu.ts";
import { mlaPrefillReference } from "./reference.ts";

type Row = readonly [
  rows: number,
  length: number,
  heads: number,
  widths: readonly [latent: number, rope: number, nope: number, value: number],
  weightDtype: "f32" | "f16" | "bf16",
  cacheDtype: LatentDtype,
  pageSize: number,
  /** Element type of the queries where the device takes 16 bits, and then of the arithmetic; default f32. */
  queryDtype?: WeightDType,
];

const shapes: readonly Row[] = [
  [1, 1, 1, [8, 8, 8, 8], "f32", "f32", 64],
  [3, 67, 2, [16, 8, 24, 8], "f32", "f32", 5],
  [70, 70, 3, [32, 16, 16, 40], "f16", "f16", 64],
  [13, 200, 2, [256, 32, 64, 64], "bf16", "bf16", 64],
  [64, 128, 2, [256, 64, 64, 128], "bf16", "f32", 16],
  [9, 90, 2, [512, 64, 192, 256], "bf16", "fp8", 64],
  [11, 75, 2, [256, 32, 64, 64], "bf16", "fp8", 16],
  [5, 3, 2, [256, 32, 64, 64], "bf16", "bf16", 64],
  [96, 300, 4, [512, 64, 128, 128], "bf16", "bf16", 64],
  [1, 1, 2, [512, 64, 128, 128], "bf16", "bf16", 64, "bf16"],
  [140, 400, 2, [512, 64, 128, 128], "bf16", "bf16", 64, "bf16"],
  [130, 130, 3, [256, 32, 64, 64], "f16", "f16", 16, "f16"],
  [66, 333, 2, [256, 64, 64, 128], "bf16", "fp8", 64, "bf16"],
  [40, 257, 2, [512, 64, 192, 256], "bf16", "bf16", 64, "bf16"],
  [5, 3, 2, [256, 32, 64, 64], "bf16", "bf16", 64, "bf16"],
  [33, 90, 2, [128, 32, 24, 40], "bf16", "bf16", 64, "bf16"],
];

const tolerance: Tolerance = { absolute: 5e-6, relative: 2e-6 };

/** Keys, values and probabilities rounded to 16 bits, by the part of the largest output that an error may be. */
const tolerances16: Readonly<Record<WeightDType, { readonly part: number; readonly cosine: number }>> = {
  f32: { part: 5e-6, cosine: 1e-9 },
  f16: { part: 6e-3, cosine: 2e-6 },
  bf16: { part: 4e-2, cosine: 1e-4 },
};

function toleranceOf(dtype: WeightDType, expected: Float64Array): Tolerance {
  if (dtype === "f32") return tolerance;
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const { part, cosine } = tolerances16[dtype];
  return { absolute: part * largest, relative: 0, cosine };
}

function makeInputs([rows, length, heads, widths, weightDtype, cacheDtype, pageSize, queryDtype]: Row) {
  const [latentWidth, ropeWidth, nopeWidth, valueWidth] = widths;
  const random = createRandom(rows * 100 + heads);
  const columns = latentWidth;
  const kvB = randomMatrix(random, { dtype: weightDtype, rows: heads * (nopeWidth + valueWidth), columns });
  const normals = random.normals(rows * heads * (nopeWidth + ropeWidth));
  const q = queryDtype === undefined ? normals : decodeToF32(encodeFromF32(normals, queryDtype), queryDtype);
  const noise = createNoise(random, 1);
  const stored = { lengths: [length], pageSize, dtype: cacheDtype, latentWidth, ropeWidth, noise };
  const cache = createPagedCache(random, stored);
  const entries = Float32Array.from(
    Array.from({ length }, (_, t) => {
      const page = cache.blockTable[Math.floor(t / pageSize)]!;
      return [...cache.entry(page * pageSize + (t % pageSize))];
    }).flat(),
  );
  const softmaxScale = (nopeWidth + ropeWidth) ** -0.5;
  const sizes = { heads, latentWidth, ropeWidth, nopeWidth, valueWidth, softmaxScale };
  const expected = mlaPrefillReference({ ...sizes, q, entries, kvB: kvB.values, rows, length });
  // A query from before the cache's beginning sees nothing and gives 0; the reference knows no such query.
  expected.fill(0, 0, Math.max(0, rows - length) * heads * valueWidth);
  return { kvB, q, cache, sizes, expected };
}

/** The element type in which a device of that kind takes the queries of a case. */
const queryDtypeOf = (kind: DeviceKind, [, , , , , , , dtype = "f32"]: Row) =>
  kind === "cuda" ? dtype : "f32";

interface Result {
  readonly actual: Float32Array;
  /** In which the device multiplied. */
  readonly arithmetic: WeightDType;
}

async function run(memory: CaseMemory, row: Row, made: ReturnType<typeof makeInputs>): Promise<Result> {
  const [rows, length, , , , dtype, pageSize] = row;
  const qDtype = queryDtypeOf(memory.device.kind, row);
  const { heads, nopeWidth, ropeWidth, valueWidth } = made.sizes;
  const maxRows = rows + 3;
  const args = {
    ...{ ...made.sizes, maxRows },
    qDtype,
    q: memory.upload(
      "q",
      encodeFromF32(made.q, qDtype),
      maxRows * heads * (nopeWidth + ropeWidth) * bytesPerElement(qDtype),
    ),
    cache: { buffer: memory.upload("cache", made.cache.bytes), dtype, pageSize },
    blockTable: memory.upload("blockTable", made.cache.blockTable),
    cacheSeqlens: memory.uploadCount("cacheSeqlens", length),
    kvB: memory.uploadMatrix("kvB", made.kvB),
    out: memory.reserve("out", maxRows * heads * valueWidth * 4),
    rowCount: memory.uploadCount("rowCount", rows),
  };
  await memory.run((launch) => mlaPrefill(launch, args));
  const isHalf = memory.device.kind === "webgpu" && prefillSubgroups(memory.device, args) > 0;
  return { actual: await memory.readFloats(args.out), arithmetic: isHalf ? "f16" : qDtype };
}

function prepare(row: Row): PreparedCase {
  const made = makeInputs(row);
  const [rows, length, heads] = row;
  const constantOf = (index: number) => (index < rows - length ? 0 : null);
  return {
    async check(memory) {
      const { actual, arithmetic } = await run(memory, row, made);
      const width = heads * made.sizes.valueWidth;
      const { expected } = made;
      const tolerance = toleranceOf(arithmetic, expected);
      return [compareRows({ output: "out", actual, width, liveRows: rows, expected, tolerance, constantOf })];
    },
  };
}

/** Cases of mla-prefill: every stored form, the widths of the model types, chunks at the start and deep in a context. */
export function mlaPrefillCases(): KernelCase[] {
  return shapes.map((row) => ({
    ...{
      kernel: "mla-prefill",
      group: row[7] === undefined ? "causal" : `causal, ${row[7]} queries`,
      isQuick: row[0] * row[1] < 10_000,
    },
    shape: `n=${row[0]} len=${row[1]} h=${row[2]} ${row[3].join("+")} ${row[4]} cache ${row[5]} page=${row[6]}${row[7] === undefined ? "" : ` q ${row[7]}`}`,
    prepare: () => prepare(row),
  }));
}
