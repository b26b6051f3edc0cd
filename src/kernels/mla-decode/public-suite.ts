import { createRandom } from "../../base/random.ts";
import type { KernelCase } from "../common/cases/kernel-case.ts";
import { createPagedCache, type PagedCache } from "../common/cases/paged-cache.ts";
import { createNoise } from "../common/cases/stored.ts";
import { decodeCase, publicTolerances } from "./decode-case.ts";

const LATENT = 512;
const ROPE = 64;
const FLOPS_PER_TOKEN_AND_ROW = 2 * (2 * LATENT + ROPE);
/** Up to here a shape runs with fixed and varying lengths, causal and not: four cases. */
const FOURFOLD_FLOPS = 1e9;
/** Up to here with fixed lengths under one mask and varying ones under the other; past it with varying lengths alone. */
const TWOFOLD_FLOPS = 5e9;

type Lengths = "fixed" | "varying" | "some zero";

/** Lengths up to `longest`, the longest among them; half of the varying ones are under a sixteenth of it. */
function lengthsOf(kind: Lengths, batch: number, longest: number): number[] {
  const random = createRandom(batch * 10_000 + longest);
  return Array.from({ length: batch }, (_, b) => {
    if (kind === "fixed" || b === batch - 1) return longest;
    if (kind === "some zero" && random.uniform() < 0.3) return 0;
    return Math.floor(random.uniform() ** 4 * (longest + 1));
  });
}

const noise = (() => {
  let made: ReturnType<typeof createNoise> | undefined;
  return () => {
    made ??= createNoise(createRandom(7), 0.1, true);
    return made;
  };
})();

/** The cache of the last shape asked for: consecutive cases share theirs. */
const cacheOf = (() => {
  let last: { key: string; cache: PagedCache } | undefined;
  return (kind: Lengths, batch: number, longest: number): PagedCache => {
    const key = `${kind} ${batch} ${longest}`;
    if (last?.key !== key) {
      const widths = { latentWidth: LATENT, ropeWidth: ROPE };
      const stored = { dtype: "bf16", pageSize: 64, noise: noise() } as const;
      const lengths = lengthsOf(kind, batch, longest);
      const cache = createPagedCache(createRandom(batch + longest), { ...widths, ...stored, lengths });
      last = { key, cache };
    }
    return last.cache;
  };
})();

interface Shape {
  readonly batch: number;
  readonly sQ: number;
  readonly longest: number;
  readonly heads: number;
  readonly lengths: Lengths;
  readonly mask: "causal" | "full";
}

function suiteCase({ batch, sQ, longest, heads, lengths, mask }: Shape): KernelCase {
  const isTypical = batch === 2 && longest === 140 && lengths === "varying" && mask === "causal";
  return decodeCase({
    ...{ group: "public suite", sQ, heads, mask, seed: batch * longest + sQ * heads },
    isQuick: isTypical || (lengths === "some zero" && longest === 20 && sQ === 1),
    name: `b=${batch} s_k=${longest} ${lengths} lengths`,
    createCache: () => cacheOf(lengths, batch, longest),
    createQueryNoise: noise,
    softmaxScale: (LATENT + ROPE) ** -0.5,
    spareSequences: 0,
    truthBudget: 5e6,
    tolerances: publicTolerances,
    tolerances16: publicTolerances,
  });
}

/** Masks under which a shape runs with fixed or varying lengths, by what it costs. */
function masksOf(shape: Omit<Shape, "lengths" | "mask">, lengths: Lengths, turn: number): Shape["mask"][] {
  const { batch, sQ, longest, heads } = shape;
  const flops = FLOPS_PER_TOKEN_AND_ROW * batch * sQ * longest * heads;
  if (flops <= FOURFOLD_FLOPS) return ["causal", "full"];
  if (flops > TWOFOLD_FLOPS && lengths === "fixed") return [];
  return turn % 2 === 0 ? ["causal"] : ["full"];
}

function* suiteShapes(): Generator<Shape> {
  let turn = 0;
  for (const longest of [20, 140, 4096])
    for (const batch of [1, 2, 6, 64])
      for (const lengths of ["fixed", "varying"] as const)
        for (const sQ of [1, 2, 4])
          for (const heads of [1, 3, 9, 63, 64, 126, 128]) {
            const shape = { batch, sQ, longest, heads };
            for (const mask of masksOf(shape, lengths, turn++)) yield { ...shape, lengths, mask };
          }
  for (const [longest, sQ, heads] of [
    [20, 1, 64],
    [140, 2, 128],
    [4096, 1, 16],
    [4096, 2, 64],
  ] as const) {
    for (const mask of ["causal", "full"] as const) {
      yield { batch: 128, sQ, longest, heads, lengths: "some zero", mask };
    }
  }
}

/**
 * The shapes of the public test suite of this operation: every combination of its batch sizes, query tokens, context lengths
 * and head counts, cheap ones with fixed and varying lengths, causal and not; 128 sequences with some of length zero.
 */
export function publicSuite(): KernelCase[] {
  return Array.from(suiteShapes(), suiteCase);
}
