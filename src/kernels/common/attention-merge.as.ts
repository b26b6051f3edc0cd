// The sum of a query row's splits: what the merge of mla-decode and the epilogue both begin with.
import { exp2Lanes, LOWEST, naturalLog } from "./attention-tile.as";
import { multiplyAdd } from "./simd.as";

/**
 * Writes Σ 2^(max_s − max)·out_s / Σ 2^(max_s − max)·sum_s over the splits to `target` [latent] and returns the row's
 * natural log-sum-exp; zeros and +∞ where no split saw a token. Split s lies `outStride` and `statStride` bytes after the
 * one before.
 */
export function mergeSplits(
  out: usize, outStride: usize, stat: usize, statStride: usize, splits: i32, latent: i32, target: usize,
): f32 {
  let highest = LOWEST;
  for (let s = 0; s < splits; s++) highest = max(highest, load<f32>(stat + <usize>s * statStride));
  const bytes = <usize>latent << 2;
  memory.fill(target, 0, bytes);
  let sum: f32 = 0;
  for (let s = 0; s < splits; s++) {
    const at = stat + <usize>s * statStride;
    const seen = load<f32>(at, 4);
    if (seen == 0) continue;
    const factor = exp2Lanes(f32x4.splat(load<f32>(at) - highest));
    sum += seen * f32x4.extract_lane(factor, 0);
    const source = out + <usize>s * outStride;
    for (let i: usize = 0; i < bytes; i += 16) {
      v128.store(target + i, multiplyAdd(factor, v128.load(source + i), v128.load(target + i)));
    }
  }
  if (sum == 0) return Infinity;
  const inverse = f32x4.splat(<f32>1 / sum);
  for (let i: usize = 0; i < bytes; i += 16) v128.store(target + i, f32x4.mul(v128.load(target + i), inverse));
  return <f32>(<f64>highest * 0.6931471805599453 + naturalLog(<f64>sum));
}
