import { checkInteger } from "../../base/checks.ts";
import { checkLatentWidths } from "./latent-cache.ts";

/** Sizes that the split stage and the merge share; fixed when a step is recorded. */
export interface MlaDecodeSizes {
  /** Sequences recorded. */
  readonly batch: number;
  /** Query tokens of each sequence. */
  readonly sQ: number;
  readonly heads: number;
  /** d_c: 128, 256 or 512. */
  readonly latentWidth: number;
  /** d_r: 32 or 64. */
  readonly ropeWidth: number;
  /** Longest sequence, in cached tokens; with `indices`, their number a token (topk). */
  readonly maxLen: number;
}

const LEAST_SPLIT = 256;
const MOST_SPLITS = 16;

/** Throws TypeError or RangeError for sizes that the decode kernels do not take. */
export function checkMlaDecodeSizes(sizes: MlaDecodeSizes): void {
  for (const name of ["batch", "sQ", "heads", "maxLen"] as const) checkInteger(name, sizes[name], { min: 1 });
  checkLatentWidths(sizes);
}

/**
 * Splits of a sequence in the split stage of `mlaDecode`: 1 for each 256 tokens of the longest, at most 16. A sequence of `len` tokens is cut into pieces of
 * max(256, ⌈len / splits⌉) tokens, which its own length alone decides: results do not depend on batch or threads.
 */
export function mlaDecodeSplits(maxLen: number): number {
  return Math.max(1, Math.min(MOST_SPLITS, Math.ceil(maxLen / LEAST_SPLIT)));
}

/** Where things lie in the workspace, in float32 units: outputs [batch, splits, sQ·heads, d_c], then [.., 2] max and sum. */
export function mlaDecodeLayout(sizes: MlaDecodeSizes): { splits: number; statsOffset: number } {
  const splits = mlaDecodeSplits(sizes.maxLen);
  return { splits, statsOffset: sizes.batch * splits * sizes.sQ * sizes.heads * sizes.latentWidth };
}

/** Bytes of workspace that `mlaDecode` and `mlaDecodePartial` need. */
export function mlaDecodeWorkspaceBytes(sizes: MlaDecodeSizes): number {
  const { splits, statsOffset } = mlaDecodeLayout(sizes);
  return 4 * (statsOffset + 2 * sizes.batch * splits * sizes.sQ * sizes.heads);
}
