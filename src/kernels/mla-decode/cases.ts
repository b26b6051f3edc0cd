import { createRandom } from "../../base/random.ts";
import type { KernelCase } from "../common/cases/kernel-case.ts";
import { createPagedCache } from "../common/cases/paged-cache.ts";
import { createNoise } from "../common/cases/stored.ts";
import type { LatentDtype } from "../common/latent-cache.ts";
import { decodeCase } from "./decode-case.ts";
import { publicSuite } from "./public-suite.ts";

type Row = readonly [
  lengths: readonly number[],
  sQ: number,
  heads: number,
  latentWidth: number,
  ropeWidth: number,
  dtype: LatentDtype,
  mask: "causal" | "full" | "indices",
  pageSize: number,
];

/** Every stored form, width and mask at lengths that are multiples of nothing. */
const rows: readonly Row[] = [
  [[1], 1, 1, 128, 32, "f32", "full", 64],
  [[140, 65], 2, 9, 256, 64, "f32", "causal", 64],
  [[513], 1, 126, 256, 64, "f32", "causal", 16],
  [[70, 0, 31], 2, 16, 512, 64, "f32", "indices", 64],
  [[20, 0, 33], 1, 3, 256, 32, "f16", "full", 64],
  [[97, 96], 3, 7, 512, 32, "f16", "causal", 1],
  [[31, 0], 1, 63, 128, 64, "f16", "indices", 16],
  [[4300], 1, 5, 128, 32, "bf16", "full", 64],
  [[600, 1, 0, 3], 4, 20, 512, 64, "bf16", "causal", 64],
  [[257, 70], 2, 40, 256, 32, "bf16", "indices", 64],
  [[700, 0, 130], 1, 40, 256, 32, "bf16", "causal", 64],
  [[300, 97], 4, 126, 256, 32, "bf16", "causal", 16],
  [[1100, 64], 2, 5, 256, 32, "f16", "causal", 32],
  [[300], 1, 16, 512, 64, "fp8", "full", 64],
  [[1, 129, 640], 2, 33, 512, 64, "fp8", "causal", 32],
  [[70, 257], 2, 40, 512, 64, "fp8", "indices", 64],
  [[150, 33], 2, 9, 256, 32, "fp8", "causal", 64],
  [[70], 1, 3, 128, 64, "fp8", "full", 16],
];

const groups: Readonly<Record<LatentDtype, string>> = {
  f32: "f32 cache",
  f16: "f16 cache",
  bf16: "bf16 cache",
  fp8: "fp8 cache",
};

/** Scores of a few units, so that the softmax has peaks: float32 accumulation stays within these. */
const tolerance = { absolute: 8e-6, relative: 8e-6 };

/** Values ten times those of the public suite, and a softmax with peaks: the 16-bit probabilities' rounding shows more. */
const wide = {
  out: { absolute: 8e-3, relative: 2.01 / 128, cosine: 2e-5 },
  lse: { absolute: 1e-5, relative: 8.01 / 65536 },
};

function caseOf([lengths, sQ, heads, latentWidth, ropeWidth, dtype, mask, pageSize]: Row): KernelCase {
  const seed = lengths.length * 1000 + heads;
  const name = `len=${lengths.join()} d_c=${latentWidth} d_r=${ropeWidth} page=${pageSize} ${dtype}`;
  return decodeCase({
    ...{ group: groups[dtype], isQuick: true, sQ, heads, mask, name, seed },
    createCache: () => {
      const random = createRandom(seed);
      const noise = createNoise(random, 1);
      return createPagedCache(random, { lengths, pageSize, dtype, latentWidth, ropeWidth, noise });
    },
    createQueryNoise: () => createNoise(createRandom(seed + 1), 0.7),
    softmaxScale: 2 * latentWidth ** -0.5,
    spareSequences: 1,
    truthBudget: 4e7,
    tolerances: { out: tolerance, lse: tolerance },
    tolerances16: wide,
  });
}

/** Cases of mla-decode: every stored form and mask, then the public test suite. */
export function mlaDecodeCases(): KernelCase[] {
  return [...rows.map(caseOf), ...publicSuite()];
}
