import { createRandom } from "../base/random.ts";
import { compareRows } from "../kernels/common/cases/compare.ts";
import type { KernelCase, PreparedCase } from "../kernels/common/cases/kernel-case.ts";
import { createPagedCache } from "../kernels/common/cases/paged-cache.ts";
import { createNoise, randomMatrix, type StoredMatrix } from "../kernels/common/cases/stored.ts";
import {
  type DecodeShape,
  decodeTruth,
  makeDecodeInputs,
  uploadDecodeInputs,
} from "../kernels/mla-decode/decode-inputs.ts";
import { mlaDecodePartial } from "../kernels/mla-decode/mla-decode.ts";
import { mlaEpilogue } from "../kernels/mla-epilogue/mla-epilogue.ts";

type Row = readonly [
  lengths: readonly number[],
  sQ: number,
  heads: number,
  widths: readonly [latent: number, rope: number, nope: number, value: number],
  weightDtype: "f32" | "f16" | "bf16",
];

const shapes: readonly Row[] = [
  [[900], 1, 3, [512, 64, 16, 128], "bf16"],
  [[100], 1, 2, [256, 32, 0, 7], "f16"],
  [[300, 0, 1], 1, 4, [128, 32, 8, 64], "f32"],
  [[1300, 5, 0, 260, 77, 1, 2, 640, 33], 2, 2, [256, 64, 5, 30], "bf16"],
  [[513, 64], 1, 20, [512, 64, 192, 256], "bf16"],
];

function decodeShape([lengths, sQ, heads, [latentWidth, ropeWidth]]: Row): DecodeShape {
  const seed = lengths.length * 100 + heads;
  return {
    ...{ sQ, heads, mask: "causal", seed, spareSequences: 1, softmaxScale: 2 * latentWidth ** -0.5 },
    createCache: () => {
      const random = createRandom(seed);
      const stored = { dtype: "f32", pageSize: 64, noise: createNoise(random, 1) } as const;
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
  return {
    async check(memory) {
      const partial = uploadDecodeInputs(memory, shape, inputs);
      const out = memory.reserve("out", partial.batch * sQ * heads * valueWidth * 4);
      const args = { ...partial, partials: partial.workspace, nopeWidth, valueWidth, out };
      const weights = memory.uploadMatrix("kvB", kvB);
      await memory.run((launch) => {
        mlaDecodePartial(launch, partial);
        mlaEpilogue(launch, { ...args, kvB: weights });
      });
      const actual = await memory.readFloats(out);
      const tolerance = { absolute: 1e-5, relative: 0 };
      return [compareRows({ output: "out", actual, width: valueWidth, liveRows, expected, tolerance })];
    },
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
