import { checkInteger, checkOneOf } from "../../base/checks.ts";
import type { WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer, DeviceKind, KernelSource, Launch } from "../../device/device.ts";
import { type LatentDtype, latentCachePages } from "../common/latent-cache.ts";
import { mlaDecodeLayout, mlaDecodeWorkspaceBytes } from "../common/mla-partials.ts";
import { checkBytes } from "../common/weight.ts";
import { enqueueFloat } from "./mla-decode.float.ts";
import { enqueueHopper, takesHopper } from "./mla-decode.hopper.ts";
import type { MlaDecodeArguments } from "./mla-decode.ts";

/** The element types of CUDA's q and cache. */
export type CudaDtype = "bf16" | "f16";

/** How `mlaDecode` runs on CUDA. */
export interface MlaDecodeCudaOptions {
  /** Forces a kernel; default: the Hopper ones where they take the shape and the GPU has them. */
  readonly variant?: "portable" | "hopper";
  /**
   * Hopper: tokens of a split, a multiple of 64. Every sequence is cut there whatever the batch holds, so that results are
   * the same bits in every batch; by default the work is shared out evenly, which is faster. The portable kernel's
   * results never depend on the batch.
   */
  readonly splitTokens?: number;
  /** Hopper: blocks that share a sequence through one cluster; for measurements. */
  readonly cluster?: 1 | 2 | 4 | 8;
  /** Hopper: tiles of 64 tokens that a cluster takes at least; for measurements. */
  readonly leastTiles?: number;
}

/** What both kinds of CUDA kernels get: checked, with defaults filled in. */
export interface CudaDecode {
  readonly args: MlaDecodeArguments;
  /** Of q and of the arithmetic. */
  readonly dtype: CudaDtype;
  readonly outFloat: boolean;
  readonly pages: number;
  readonly table: DeviceBuffer;
  readonly tableWidth: number;
  readonly lengths: DeviceBuffer;
  readonly options: MlaDecodeCudaOptions;
}

/**
 * The element type of q with which `mlaDecode` is fastest on a device of that kind: on CUDA the cache's own, bf16 over fp8; else f32.
 */
export function queryDtypeOn(kind: DeviceKind, cache: LatentDtype): WeightDType {
  if (kind !== "cuda") return "f32";
  return cache === "fp8" ? "bf16" : cache;
}

const ROWS = 16;
const TILE = 32;

function partialKernel({ args, dtype }: CudaDecode): KernelSource {
  const width = args.latentWidth + args.ropeWidth;
  const pitch = width * 2 + 16;
  const isFp8 = args.cache.dtype === "fp8";
  return {
    name: "mla-decode.partial",
    buffers: ["q", "cache", "table", "lengths", "batchCount", "partials"],
    scalars: [
      ["pageSize", "i32"],
      ["pages", "i32"],
      ["tableWidth", "i32"],
      ["sQ", "i32"],
      ["heads", "i32"],
      ["splits", "i32"],
      ["mode", "i32"],
      ["statsOffset", "i32"],
      ["counted", "i32"],
      ["softmaxScale", "f32"],
    ],
    cuda: {
      module: isFp8 ? "mla-decode.fp8.fatbin" : "mla-decode.fatbin",
      function: `mlaDecodePartial_${isFp8 ? "fp8" : dtype}_${args.latentWidth}_${args.ropeWidth}`,
      blockSize: 128,
      sharedBytes: (2 * TILE + ROWS) * pitch + ROWS * (TILE + 4) * 4 + 2 * TILE * 4,
    },
  };
}

function mergeKernel(dtype: CudaDtype): KernelSource {
  return {
    name: "mla-decode.merge",
    buffers: ["partials", "batchCount", "out", "lse"],
    scalars: [
      ["latentWidth", "i32"],
      ["rows", "i32"],
      ["splits", "i32"],
      ["statsOffset", "i32"],
      ["counted", "i32"],
      ["outFloat", "i32"],
    ],
    cuda: { module: "mla-decode.fatbin", function: `mlaDecodeMerge_${dtype}`, blockSize: 128 },
  };
}

function prepare(args: MlaDecodeArguments): CudaDecode {
  const stored = checkOneOf("cache.dtype on CUDA", args.cache.dtype, ["bf16", "f16", "fp8"]);
  const dtype = stored === "fp8" ? "bf16" : stored;
  checkOneOf("qDtype on CUDA", args.qDtype ?? "f32", [dtype]);
  const outDtype = checkOneOf("outDtype", args.outDtype ?? "f32", ["f32", dtype]);
  const sparse = args.mask === "indices";
  return {
    args,
    dtype,
    outFloat: outDtype === "f32",
    pages: latentCachePages(args.cache, args),
    table: sparse ? args.indices : args.blockTable,
    tableWidth: sparse ? args.maxLen : args.maxPages,
    lengths: sparse ? args.indices : args.cacheSeqlens,
    options: args.cuda ?? {},
  };
}

function enqueuePortable(launch: Launch, decode: CudaDecode): void {
  const { args, dtype, lengths } = decode;
  checkBytes("workspace", args.workspace, mlaDecodeWorkspaceBytes(args));
  const { splits, statsOffset } = mlaDecodeLayout(args);
  const rows = args.sQ * args.heads;
  const blocks = args.mask === "indices" ? args.sQ * Math.ceil(args.heads / ROWS) : Math.ceil(rows / ROWS);
  const counted = args.batchCount === undefined ? 0 : 1;
  launch(
    partialKernel(decode),
    args.batch * splits * blocks,
    [args.q, args.cache.buffer, decode.table, lengths, args.batchCount ?? lengths, args.workspace],
    [
      args.cache.pageSize,
      decode.pages,
      decode.tableWidth,
      args.sQ,
      args.heads,
      splits,
      ["full", "causal", "indices"].indexOf(args.mask),
      statsOffset,
      counted,
      args.softmaxScale,
    ],
  );
  launch(
    mergeKernel(dtype),
    args.batch * rows,
    [args.workspace, args.batchCount ?? args.workspace, args.out, args.lse],
    [args.latentWidth, rows, splits, statsOffset, counted, decode.outFloat ? 1 : 0],
  );
}

/**
 * `mlaDecode` on CUDA, its buffers checked: q in f32 over any cache, q and cache in bf16 or f16, or q in bf16 over fp8; out in f32 or 16 bits. Throws
 * RangeError for other element types and for a forced variant that does not take the shape.
 */
export function enqueueCuda(launch: Launch, args: MlaDecodeArguments): void {
  if ((args.qDtype ?? "f32") === "f32") {
    enqueueFloat(launch, args, mergeKernel(args.outDtype === "f16" ? "f16" : "bf16"));
    return;
  }
  const decode = prepare(args);
  const { variant, splitTokens } = decode.options;
  if (splitTokens !== undefined) {
    checkInteger("cuda.splitTokens", splitTokens, { min: 64 });
    if (splitTokens % 64 !== 0) {
      throw new RangeError(`cuda.splitTokens must be a multiple of 64, got ${splitTokens}`);
    }
  }
  const refusal = args.cache.dtype === "fp8" ? "an fp8 cache" : takesHopper(decode, launch.target.limits);
  if (variant === "hopper" && refusal !== null) {
    throw new RangeError(`cuda.variant: the Hopper kernels do not take ${refusal}`);
  }
  if (variant === "portable" || refusal !== null) enqueuePortable(launch, decode);
  else enqueueHopper(launch, decode);
}
