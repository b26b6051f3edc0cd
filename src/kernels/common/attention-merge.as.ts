// The sum of a query row's splits: what the merge of mla-decode and the epilogue both begin with.
import { exp2Lanes, LOWEST, naturalLog } from "./attention-tile.as";
import { multiplyAdd } from "./simd.as";

/** The largest of the splits' base-2 maxima. */
function highestOf(stat: usize, statStride: usize, splits: i32): f32 {
  let highest = LOWEST;
  for (let s = 0; s < splits; s++) highest = max(highest, load<f32>(stat + <usize>s * statStride));
  return highest;
}

/**
 * Writes Σ 2^(max_s − max)·out_s / Σ 2^(max_s − max)·sum_s over the splits to `target` [latent] and returns the divisor;
 * zeros and 0 where no split saw a token. Split s lies `outStride` and `statStride` bytes after the one before.
 */
export function mergeSplits(
  out: usize, outStride: usize, stat: usize, statStride: usize, splits: i32, latent: i32, target: usize,
): f32 {
  const highest = highestOf(stat, statStride, splits);
  const bytes = <usize>latent << 2;
  let sum: f32 = 0;
  let from = target;
  for (let s = 0; s < splits; s++) {
    const at = stat + <usize>s * statStride;
    const seen = load<f32>(at, 4);
    if (seen == 0) continue;
    const source = out + <usize>s * outStride;
    const factor = exp2Lanes(f32x4.splat(load<f32>(at) - highest));
    const share = seen * f32x4.extract_lane(factor, 0);
    if (sum == 0 && share == seen) {
      // Times one, so the first split is not copied before others are added.
      from = source;
    } else if (sum == 0) {
      for (let i: usize = 0; i < bytes; i += 16) v128.store(target + i, f32x4.mul(factor, v128.load(source + i)));
    } else {
      for (let i: usize = 0; i < bytes; i += 16) {
        v128.store(target + i, multiplyAdd(factor, v128.load(source + i), v128.load(from + i)));
      }
      from = target;
    }
    sum += share;
  }
  if (sum == 0) {
    memory.fill(target, 0, bytes);
    return 0;
  }
  const inverse = f32x4.splat(<f32>1 / sum);
  for (let i: usize = 0; i < bytes; i += 16) v128.store(target + i, f32x4.mul(v128.load(from + i), inverse));
  return sum;
}

/** The natural log-sum-exp of a row whose splits {@link mergeSplits} merged; +∞ where no split saw a token. */
export function mergedLogSumExp(stat: usize, statStride: usize, splits: i32, sum: f32): f32 {
  if (sum == 0) return Infinity;
  return <f32>(<f64>highestOf(stat, statStride, splits) * 0.6931471805599453 + naturalLog(<f64>sum));
}
