import { roundUp } from "../../base/integers.ts";
import type { KernelSource, Launch } from "../../device/device.ts";
import { attentionBuild } from "../common/attention-lanes.cuda.ts";
import {
  type AttentionArguments,
  type AttentionSizes,
  attentionBuffers,
  attentionLaunch,
  attentionRowBlocks,
  attentionScalars,
  checkAttention,
  checkAttentionSizes,
} from "../common/attention-record.ts";
import { type KeyValueDtype, keyValueCachePages, keyValueTokenBytes } from "../common/key-value-cache.ts";
import { enqueueDecodeWebGpu } from "./attention-decode.webgpu.ts";

/** Tokens of a split at least, and splits at most: those of mla-decode. */
const LEAST_SPLIT = 256;
const MOST_SPLITS = 16;

const layout = { buffers: attentionBuffers, scalars: attentionScalars };
const partial: KernelSource = { name: "attention-decode.partial", ...layout, cpu: "attentionDecodePartial" };
const merge: KernelSource = {
  name: "attention-decode.merge",
  ...layout,
  cpu: "attentionDecodeMerge",
  cuda: { module: "attention-decode.fatbin", function: "attentionDecodeMerge", blockSize: 128 },
};

/** Splits, and where the statistics lie in the workspace, in float32 units: at a multiple of 256 bytes, as WebGPU binds them. */
function layoutOf(sizes: AttentionSizes): { splits: number; statsOffset: number } {
  const { batch, sQ, heads, headWidth, maxLen, window = maxLen } = sizes;
  const seen = Math.min(maxLen, window + sQ);
  const splits = Math.max(1, Math.min(MOST_SPLITS, Math.ceil(seen / LEAST_SPLIT)));
  return { splits, statsOffset: roundUp(batch * splits * sQ * heads * headWidth, 64) };
}

/**
 * Bytes of workspace that {@link attentionDecode} needs: outputs, maxima and sums of every split. Throws TypeError or
 * RangeError for sizes it does not take.
 */
export function attentionDecodeWorkspaceBytes(sizes: AttentionSizes): number {
  checkAttentionSizes(sizes);
  const { splits, statsOffset } = layoutOf(sizes);
  return 4 * (statsOffset + 2 * sizes.batch * splits * sizes.sQ * sizes.heads);
}

/**
 * Attention over a paged cache of keys and values, for multi-head, grouped-query and multi-query caches: out = Σ
 * softmax(scale · q·k)·v for each of sQ · heads rows a sequence, in tiles with an online softmax (FlashAttention, arXiv
 * 2205.14135), split over the context and merged. Accumulates in float32; a sequence's results depend neither on the batch
 * nor on threads. Throws TypeError or RangeError for sizes it does not take and buffers that are too small.
 */
export function attentionDecode(launch: Launch, args: AttentionArguments): void {
  checkAttention(args, attentionDecodeWorkspaceBytes(args));
  keyValueCachePages(args.cache, args);
  const { splits, statsOffset } = layoutOf(args);
  if (launch.target.kind === "webgpu") {
    enqueueDecodeWebGpu(launch, args, { splits, statsOffset, leastSplit: LEAST_SPLIT });
    return;
  }
  const { buffers, scalars } = attentionLaunch(args, splits, statsOffset);
  const items = args.batch * splits * args.kvHeads;
  if (launch.target.kind === "cuda") {
    const { suffix, rowBlocks } = attentionBuild(args, args.cache.dtype);
    const cuda = {
      module: "attention-decode.fatbin",
      function: `attentionDecodePartial_${suffix}`,
      blockSize: 128,
    };
    launch({ ...partial, cuda }, items * rowBlocks, buffers, scalars);
  } else launch(partial, items * attentionRowBlocks(args).blocks, buffers, scalars);
  launch(merge, args.batch * args.sQ * args.heads, buffers, scalars);
}

/**
 * FLOPs and bytes of one call whose rows see `tokens` cached tokens over all sequences: 4 · sQ · heads · headWidth a token; keys
 * and values once, q and out as float32.
 */
export function attentionDecodeCost(
  sizes: AttentionSizes,
  dtype: KeyValueDtype,
  tokens: number,
): { flops: number; bytes: number } {
  const { batch, sQ, heads, headWidth } = sizes;
  return {
    flops: 4 * sQ * heads * headWidth * tokens,
    bytes: keyValueTokenBytes(dtype, sizes) * tokens + 8 * batch * sQ * heads * headWidth,
  };
}
