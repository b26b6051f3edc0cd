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
import { enqueueStandardWebGpu } from "./standard-attention.webgpu.ts";

/** Tokens of an item of the score stage. */
const CHUNK = 256;
/** Channels of an item of the value stage where rows share a head: keys of few heads still make work for all threads. */
const CHANNELS = 16;

const layout = { buffers: attentionBuffers, scalars: attentionScalars };
const score: KernelSource = { name: "standard-attention.score", ...layout, cpu: "standardAttentionScore" };
const softmax: KernelSource = {
  name: "standard-attention.softmax",
  ...layout,
  cpu: "standardAttentionSoftmax",
  cuda: { module: "standard-attention.fatbin", function: "standardAttentionSoftmax", blockSize: 256 },
};
const value: KernelSource = { name: "standard-attention.value", ...layout, cpu: "standardAttentionValue" };

/** Channels of a block of the value stage on CUDA. */
const CUDA_CHANNELS = 32;

/** Floats of a row of scores: stores go in fours. */
const scoreStride = ({ maxLen }: AttentionSizes): number => 4 * Math.ceil(maxLen / 4);

/**
 * Bytes of workspace that {@link standardAttention} needs: every score, [batch, sQ · heads, maxLen] in float32. Throws TypeError or
 * RangeError for sizes it does not take.
 */
export function standardAttentionWorkspaceBytes(sizes: AttentionSizes): number {
  checkAttentionSizes(sizes);
  return 4 * sizes.batch * sizes.sQ * sizes.heads * scoreStride(sizes);
}

function enqueueCuda(launch: Launch, args: AttentionArguments): void {
  const { batch, sQ, heads, kvHeads, headWidth, maxLen } = args;
  const { suffix, shortSuffix, rowBlocks } = attentionBuild(args, args.cache.dtype);
  const chunks = Math.ceil(maxLen / CHUNK);
  const { buffers, scalars } = attentionLaunch(args, chunks, scoreStride(args));
  const module = "standard-attention.fatbin";
  const scoring = { module, function: `standardAttentionScore_${suffix}`, blockSize: 256 };
  const summing = { module, function: `standardAttentionValue_${shortSuffix}`, blockSize: 512 };
  const channelParts = Math.ceil(headWidth / CUDA_CHANNELS);
  launch({ ...score, cuda: scoring }, batch * chunks * kvHeads * rowBlocks, buffers, scalars);
  launch(softmax, batch * sQ * heads, buffers, scalars);
  launch({ ...value, cuda: summing }, batch * kvHeads * rowBlocks * channelParts, buffers, scalars);
}

/**
 * The same attention as `attentionDecode` the standard way (Vaswani et al. 2017, eq. 1): one launch writes all scores, one
 * turns them into probabilities, one sums the values. Accumulates in float32; a sequence's results depend neither on the
 * batch nor on threads. Throws TypeError or RangeError for sizes it does not take and buffers that are too small.
 */
export function standardAttention(launch: Launch, args: AttentionArguments): void {
  checkAttention(args, standardAttentionWorkspaceBytes(args));
  keyValueCachePages(args.cache, args);
  if (launch.target.kind === "cuda") {
    enqueueCuda(launch, args);
    return;
  }
  if (launch.target.kind === "webgpu") {
    enqueueStandardWebGpu(launch, args, scoreStride(args));
    return;
  }
  const { batch, sQ, heads, kvHeads, headWidth, maxLen } = args;
  const { rowBlock, blocks } = attentionRowBlocks(args);
  const stride = scoreStride(args);
  const chunks = Math.ceil(maxLen / CHUNK);
  const channels = rowBlock === 1 ? headWidth : CHANNELS;
  const scoring = attentionLaunch(args, chunks, stride);
  const summing = attentionLaunch(args, channels, stride);
  launch(score, batch * chunks * kvHeads * blocks, scoring.buffers, scoring.scalars);
  launch(softmax, batch * sQ * heads, scoring.buffers, scoring.scalars);
  launch(value, batch * kvHeads * blocks * (headWidth / channels), summing.buffers, summing.scalars);
}

/**
 * FLOPs and bytes of one call whose rows see `tokens` cached tokens over all sequences: those of `attentionDecode`, and
 * every score written, read and written by the softmax, and read again.
 */
export function standardAttentionCost(
  sizes: AttentionSizes,
  dtype: KeyValueDtype,
  tokens: number,
): { flops: number; bytes: number } {
  const { batch, sQ, heads, headWidth } = sizes;
  const rows = sQ * heads;
  const cacheBytes = keyValueTokenBytes(dtype, sizes) * tokens;
  return {
    flops: 4 * rows * headWidth * tokens,
    bytes: cacheBytes + 16 * rows * tokens + 8 * batch * rows * headWidth,
  };
}
