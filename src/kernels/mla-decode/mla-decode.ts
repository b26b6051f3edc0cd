import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import type { LatentCache } from "../common/latent-cache.ts";
import { latentCachePages, latentDtypeCode, latentEntryBytes } from "../common/latent-cache.ts";
import {
  checkMlaDecodeSizes,
  type MlaDecodeSizes,
  mlaDecodeLayout,
  mlaDecodeWorkspaceBytes,
} from "../common/mla-partials.ts";
import { checkBytes } from "../common/weight.ts";
import { enqueueCuda, type MlaDecodeCudaOptions } from "./mla-decode.cuda.ts";
import { enqueueFloatPartial } from "./mla-decode.float.ts";
import { enqueueWebGpu, enqueueWebGpuPartial, type MlaDecodeWebGpuOptions } from "./mla-decode.webgpu.ts";

/** Which tokens each query token sees: its sequence's, or those that `indices` names. */
export type MlaDecodeTokens =
  | {
      /** i32 [batch, maxPages]; entries past a sequence's pages are not read. */
      readonly blockTable: DeviceBuffer;
      readonly maxPages: number;
      /** i32 [batch]: cached tokens, the sQ new ones included; may be 0. */
      readonly cacheSeqlens: DeviceBuffer;
      /** Causal: query token j sees the first len − sQ + 1 + j tokens. Full: all len. */
      readonly mask: "causal" | "full";
    }
  | {
      /** i32 [batch, sQ, maxLen]: page · pageSize + offset; anything outside the cache, such as −1, is none. */
      readonly indices: DeviceBuffer;
      readonly mask: "indices";
    };

/** One record per launch of `mlaDecodePartial`. */
export type MlaDecodePartialArguments = MlaDecodeSizes &
  MlaDecodeTokens & {
    /** f32 [batch, sQ, heads, latentWidth + ropeWidth], absorbed; `mlaDecode` knows other element types. */
    readonly q: DeviceBuffer;
    readonly cache: LatentCache;
    readonly softmaxScale: number;
    /** At least `mlaDecodeWorkspaceBytes` bytes; the Hopper kernels do not use it, whatever its size. */
    readonly workspace: DeviceBuffer;
    /** i32 [1]: sequences in use; later ones are neither read nor written. Default: all. */
    readonly batchCount?: DeviceBuffer;
    /** How WebGPU runs it. */
    readonly webgpu?: MlaDecodeWebGpuOptions;
  };

/** One record per launch of `mlaDecode`. On CUDA, lengths, table and batchCount are written before the program runs, not by a launch of it. */
export type MlaDecodeArguments = MlaDecodePartialArguments & {
  /** Element type of q; default f32. CUDA also takes the cache's bf16 or f16, and multiplies in it. */
  readonly qDtype?: WeightDType;
  /** [batch, sQ, heads, latentWidth]; zeros for a row that sees no token. */
  readonly out: DeviceBuffer;
  /** Element type of out; default f32. CUDA also writes 16 bits, in the type of q where that has 16. */
  readonly outDtype?: WeightDType;
  /** How CUDA runs it; for tests and measurements, and for results that do not depend on the batch. */
  readonly cuda?: MlaDecodeCudaOptions;
  /** f32 [batch, sQ, heads]: natural log-sum-exp of the scaled scores, +∞ for a row that sees no token. */
  readonly lse: DeviceBuffer;
};

/** Query rows of an item at most: they share the conversion of the cache to float32. */
const MOST_ROWS = 32;

const partialKernel: KernelSource = {
  name: "mla-decode.partial",
  buffers: ["q", "cache", "table", "lengths", "batchCount", "partials"],
  scalars: [
    ["dtype", "i32"],
    ["pageSize", "i32"],
    ["pages", "i32"],
    ["tableWidth", "i32"],
    ["latentWidth", "i32"],
    ["ropeWidth", "i32"],
    ["sQ", "i32"],
    ["heads", "i32"],
    ["splits", "i32"],
    ["rowBlock", "i32"],
    ["mode", "i32"],
    ["softmaxScale", "f32"],
    ["statsOffset", "i32"],
    ["counted", "i32"],
  ],
  cpu: "mlaDecodePartial",
};

const mergeKernel: KernelSource = {
  name: "mla-decode.merge",
  buffers: ["partials", "batchCount", "out", "lse"],
  scalars: [
    ["latentWidth", "i32"],
    ["rows", "i32"],
    ["splits", "i32"],
    ["statsOffset", "i32"],
    ["counted", "i32"],
  ],
  cpu: "mlaDecodeMerge",
};

function checkInputs(args: MlaDecodePartialArguments, qDtype: WeightDType): void {
  checkMlaDecodeSizes(args);
  checkFinite("softmaxScale", args.softmaxScale);
  const rows = args.batch * args.sQ * args.heads;
  checkBytes("q", args.q, rows * (args.latentWidth + args.ropeWidth) * bytesPerElement(qDtype));
  if (args.mask === "indices") {
    checkBytes("indices", args.indices, args.batch * args.sQ * args.maxLen * 4);
    return;
  }
  checkInteger("maxPages", args.maxPages, { min: Math.ceil(args.maxLen / args.cache.pageSize) });
  checkBytes("blockTable", args.blockTable, args.batch * args.maxPages * 4);
  checkBytes("cacheSeqlens", args.cacheSeqlens, args.batch * 4);
}

/**
 * The split stage of {@link mlaDecode}: leaves outputs, maxima and sums of every split in the workspace, for the merge or for
 * `mlaEpilogue`. Throws as it does.
 */
export function mlaDecodePartial(launch: Launch, args: MlaDecodePartialArguments): void {
  checkInputs(args, "f32");
  checkBytes("workspace", args.workspace, mlaDecodeWorkspaceBytes(args));
  if (launch.target.kind === "cuda") {
    enqueueFloatPartial(launch, args);
    return;
  }
  if (launch.target.kind === "webgpu") {
    enqueueWebGpuPartial(launch, args);
    return;
  }
  const pages = latentCachePages(args.cache, args);
  const { splits, statsOffset } = mlaDecodeLayout(args);
  const sparse = args.mask === "indices";
  const span = sparse ? args.heads : args.sQ * args.heads;
  const rowBlock = Math.min(MOST_ROWS, Math.ceil(span / 4) * 4);
  const blocks = Math.ceil(span / rowBlock) * (sparse ? args.sQ : 1);
  const table = sparse ? args.indices : args.blockTable;
  const lengths = sparse ? args.indices : args.cacheSeqlens;
  launch(
    partialKernel,
    args.batch * splits * blocks,
    [args.q, args.cache.buffer, table, lengths, args.batchCount ?? lengths, args.workspace],
    [
      latentDtypeCode(args.cache.dtype),
      args.cache.pageSize,
      pages,
      sparse ? args.maxLen : args.maxPages,
      args.latentWidth,
      args.ropeWidth,
      args.sQ,
      args.heads,
      splits,
      rowBlock,
      ["full", "causal", "indices"].indexOf(args.mask),
      args.softmaxScale,
      statsOffset,
      args.batchCount === undefined ? 0 : 1,
    ],
  );
}

/**
 * Attention of absorbed queries over the paged latent cache: out = Σ softmax(scale · q·[c ; k_r])·c for each of sQ · heads
 * rows a sequence, split over the context and merged. Accumulates in float32. Throws TypeError or RangeError for sizes it does
 * not take and buffers that are too small.
 */
export function mlaDecode(launch: Launch, args: MlaDecodeArguments): void {
  const rows = args.sQ * args.heads;
  const { qDtype = "f32", outDtype = "f32" } = args;
  checkBytes("out", args.out, args.batch * rows * args.latentWidth * bytesPerElement(outDtype));
  checkBytes("lse", args.lse, args.batch * rows * 4);
  if (launch.target.kind === "cuda") {
    checkInputs(args, qDtype);
    enqueueCuda(launch, args);
    return;
  }
  checkOneOf("qDtype", qDtype, ["f32"]);
  checkOneOf("outDtype", outDtype, ["f32"]);
  if (launch.target.kind === "webgpu") {
    checkInputs(args, "f32");
    checkBytes("workspace", args.workspace, mlaDecodeWorkspaceBytes(args));
    enqueueWebGpu(launch, args);
    return;
  }
  mlaDecodePartial(launch, args);
  const { splits, statsOffset } = mlaDecodeLayout(args);
  const buffers = [args.workspace, args.batchCount ?? args.workspace, args.out, args.lse];
  const counted = args.batchCount === undefined ? 0 : 1;
  launch(mergeKernel, args.batch * rows, buffers, [args.latentWidth, rows, splits, statsOffset, counted]);
}

/**
 * FLOPs and bytes of one call that sees `tokens` cached tokens over all sequences: 2·sQ·heads·(2·d_c + d_r) a token; the
 * cache once, q and out as float32.
 */
export function mlaDecodeCost(
  sizes: MlaDecodeSizes,
  dtype: LatentCache["dtype"],
  tokens: number,
): { flops: number; bytes: number } {
  const rows = sizes.sQ * sizes.heads;
  const width = 2 * sizes.latentWidth + sizes.ropeWidth;
  return {
    flops: 2 * rows * width * tokens,
    bytes: latentEntryBytes(dtype, sizes) * tokens + 4 * sizes.batch * rows * width,
  };
}
