import { bytesPerElement, type WeightDType } from "../base/dtypes.ts";
import { createRandom } from "../base/random.ts";
import type { Launch } from "../device/device.ts";
import type { CaseMemory } from "../kernels/common/cases/case-memory.ts";
import { compareRows } from "../kernels/common/cases/compare.ts";
import type { KernelCase, PreparedCase } from "../kernels/common/cases/kernel-case.ts";
import { createPagedCache } from "../kernels/common/cases/paged-cache.ts";
import { createNoise, randomMatrix, type StoredMatrix } from "../kernels/common/cases/stored.ts";
import type { LatentDtype } from "../kernels/common/latent-cache.ts";
import {
  type DecodeShape,
  decodeTruth,
  makeDecodeInputs,
  uploadDecodeInputs,
} from "../kernels/mla-decode/decode-inputs.ts";
import { queryDtypeOn } from "../kernels/mla-decode/mla-decode.cuda.ts";
import {
  type MlaDecodePartialArguments,
  mlaDecode,
  mlaDecodePartial,
} from "../kernels/mla-decode/mla-decode.ts";
import { type MlaEpilogueProjection, mlaEpilogue } from "../kernels/mla-epilogue/mla-epilogue.ts";

type Row = readonly [
  lengths: readonly number[],
  sQ: number,
  heads: number,
  widths: readonly [latent: number, rope: number, nope: number, value: number],
  weightDtype: "f32" | "f16" | "bf16",
  /** Of a cache in 16 bits, in which devices that can multiply, and hand the merged results over; default f32. */
  cacheDtype?: "f16" | "bf16",
];

const shapes: readonly Row[] = [
  [[900], 1, 3, [512, 64, 16, 128], "bf16"],
  [[100], 1, 2, [256, 32, 0, 7], "f16"],
  [[300, 0, 1], 1, 4, [128, 32, 8, 64], "f32"],
  [[1300, 5, 0, 260, 77, 1, 2, 640, 33], 2, 2, [256, 64, 5, 30], "bf16"],
  [[513, 64], 1, 20, [512, 64, 192, 256], "bf16"],
  [[300], 1, 16, [512, 64, 128, 128], "bf16", "bf16"],
  [[70, 0, 700, 64, 1, 65, 3, 2, 9], 2, 3, [256, 64, 64, 128], "f16", "f16"],
  [[129, 40], 1, 5, [256, 32, 64, 64], "f32", "bf16"],
];

/** Of the largest value: probabilities, queries and results between the stages are rounded to 16 bits. */
const part16 = { f16: 4e-3, bf16: 3e-2 } as const;

function decodeShape([lengths, sQ, heads, [latentWidth, ropeWidth], , cacheDtype]: Row): DecodeShape {
  const seed = lengths.length * 100 + heads;
  return {
    ...{ sQ, heads, mask: "causal", seed, spareSequences: 1, softmaxScale: 2 * latentWidth ** -0.5 },
    createCache: () => {
      const random = createRandom(seed);
      const dtype: LatentDtype = cacheDtype ?? "f32";
      const stored = { dtype, pageSize: 64, noise: createNoise(random, 1) };
      return createPagedCache(random, { lengths, latentWidth, ropeWidth, ...stored });
    },
    createQueryNoise: () => createNoise(createRandom(seed + 1), 0.7),
  };
}

/** Float64 W_UV,i · o_i of every token and head. */
function project(out: Float64Array, weights: StoredMatrix, row: Row): Float64Array {
  const [, , heads, [latentWidth, , nopeWidth, valueWidth]] = row;
  const expected = new Float64Array((out.length / latentWidth) * valueWidth);
  for (let i = 0; i < expected.length; i++) {
    const outRow = Math.floor(i / valueWidth);
    const weightRow = (outRow % heads) * (nopeWidth + valueWidth) + nopeWidth + (i - outRow * valueWidth);
    for (let c = 0; c < latentWidth; c++) {
      expected[i]! += weights.values[weightRow * latentWidth + c]! * out[outRow * latentWidth + c]!;
    }
  }
  return expected;
}

function prepare(row: Row): PreparedCase {
  const [lengths, sQ, heads, [latentWidth, , nopeWidth, valueWidth], dtype] = row;
  const shape = decodeShape(row);
  const inputs = makeDecodeInputs(shape);
  const weightRows = heads * (nopeWidth + valueWidth);
  const kvB = randomMatrix(createRandom(5), { dtype, rows: weightRows, columns: latentWidth });
  const liveRows = lengths.length * sQ * heads;
  const rows = Array.from({ length: liveRows }, (_, i) => i);
  const expected = project(decodeTruth(shape, inputs, rows).out, kvB, row);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const projection = { nopeWidth, valueWidth };
  return {
    async check(memory) {
      const qDtype = row[5] === undefined ? "f32" : queryDtypeOn(memory.device.kind, row[5]);
      const partial = uploadDecodeInputs(memory, shape, inputs, qDtype);
      const out = memory.reserve("out", partial.batch * sQ * heads * valueWidth * 4);
      const args = { ...partial, ...projection, out, kvB: memory.uploadMatrix("kvB", kvB) };
      const attend = qDtype === "f32" ? enqueuePartials : enqueueMerged(memory, args, qDtype);
      await memory.run((launch) => attend(launch, args));
      const actual = await memory.readFloats(out);
      const isRounded = row[5] !== undefined && qDtype !== "f32";
      const tolerance = { absolute: isRounded ? part16[row[5]!] * largest : 1e-5, relative: 0 };
      return [compareRows({ output: "out", actual, width: valueWidth, liveRows, expected, tolerance })];
    },
  };
}

type Stages = MlaDecodePartialArguments & MlaEpilogueProjection;

function enqueuePartials(launch: Launch, args: Stages): void {
  mlaDecodePartial(launch, args);
  mlaEpilogue(launch, { ...args, partials: args.workspace });
}

/** The stages with merged results in 16 bits between them. */
function enqueueMerged(memory: CaseMemory, args: Stages, dtype: WeightDType) {
  const rows = args.batch * args.sQ * args.heads;
  const attended = memory.reserve("attended", rows * args.latentWidth * bytesPerElement(dtype));
  const lse = memory.reserve("lse", rows * 4);
  return (launch: Launch) => {
    mlaDecode(launch, { ...args, qDtype: dtype, out: attended, outDtype: dtype, lse });
    mlaEpilogue(launch, { ...args, attended, attendedDtype: dtype });
  };
}

/**
 * Cases of mla-epilogue after the split stage of mla-decode, against attention and projection in float64: how a device lays
 * its partial results out between the two is its own affair.
 */
export function mlaEpilogueCases(): KernelCase[] {
  return shapes.map((row) => ({
    ...{ kernel: "mla-epilogue", group: "after mla-decode", isQuick: row[0].length < 9 },
    shape: `len=${row[0].join()} s_q=${row[1]} h=${row[2]} ${row[3].join("+")} ${row[4]}`,
    prepare: () => prepare(row),
  }));
}
