import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import type { WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { type LatentCache, latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import { checkWeight, dtypeCode, type WeightMatrix } from "../common/weight.ts";
import { enqueueCuda } from "./mla-prefill.cuda.ts";
import { enqueueWebGpu } from "./mla-prefill.webgpu.ts";

/** Cached tokens expanded at once; KEYS in mla-prefill.as.ts. */
const KEYS = 64;
const SCRATCH_BYTES = 4 * 2 ** 20;

/** One record per launch of `mlaPrefill`. n is `maxRows`, the tokens recorded. */
export interface MlaPrefillArguments {
  /** [n, heads, nopeWidth + ropeWidth]: queries of consecutive tokens of one sequence, rotated. */
  readonly q: DeviceBuffer;
  /** Element type of q; default f32. CUDA also takes bf16 and f16, and multiplies in it. */
  readonly qDtype?: WeightDType;
  /** The pool of one layer; it holds the chunk's own entries already. */
  readonly cache: LatentCache;
  /** i32 [maxPages]: the sequence's pages. */
  readonly blockTable: DeviceBuffer;
  /** i32 [1]: cached tokens of the sequence, this chunk included. Query r sits at cacheSeqlens − rowCount + r. */
  readonly cacheSeqlens: DeviceBuffer;
  /** [heads · (nopeWidth + valueWidth), latentWidth]: per head W_UK's rows, then W_UV's. */
  readonly kvB: WeightMatrix;
  /** [n, heads · valueWidth]. */
  readonly out: DeviceBuffer;
  /** Element type of out; default f32. CUDA also writes bf16 and f16. */
  readonly outDtype?: WeightDType;
  /** Longest sequence, in cached tokens: what CUDA makes room for. Default: what the block table can name. */
  readonly maxLen?: number;
  /** i32 [1]: queries in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
  readonly heads: number;
  /** d_n, a multiple of 8. */
  readonly nopeWidth: number;
  /** d_r, a multiple of 8. */
  readonly ropeWidth: number;
  /** d_v, a multiple of 8. */
  readonly valueWidth: number;
  /** d_c, a multiple of 8. */
  readonly latentWidth: number;
  /** What query · key is multiplied by; positive. */
  readonly softmaxScale: number;
  /** How WebGPU runs it; default: on subgroup matrices, in f16, where the adapter, the stored types and the widths suit them. */
  readonly webgpu?: { readonly variant?: "portable" };
}

const kernel: KernelSource = {
  name: "mla-prefill",
  buffers: ["q", "cache", "blockTable", "cacheSeqlens", "kvB", "out", "rowCount"],
  scalars: [
    ["heads", "i32"],
    ["nopeWidth", "i32"],
    ["ropeWidth", "i32"],
    ["valueWidth", "i32"],
    ["latentWidth", "i32"],
    ["base2Scale", "f32"],
    ["cacheDtype", "i32"],
    ["pageSize", "i32"],
    ["weightDtype", "i32"],
    ["maxRows", "i32"],
    ["passRows", "i32"],
  ],
  cpu: "mlaPrefill",
};

/**
 * Queries of a pass: as many as a thread's scratch memory holds beside a head's weights and a tile of latents, keys and
 * values, a multiple of 8; 0 or less when not even 8 fit. Every pass expands the cache anew.
 */
function passRowsOf(args: MlaPrefillArguments): number {
  const { nopeWidth, ropeWidth, valueWidth, latentWidth, maxRows } = args;
  const queryWidth = nopeWidth + ropeWidth;
  const tile = KEYS * (latentWidth + ropeWidth + queryWidth + valueWidth);
  const work = 8 * Math.max(latentWidth + ropeWidth, KEYS + 1);
  const left = SCRATCH_BYTES / 4 - (nopeWidth + valueWidth) * latentWidth - tile - work;
  const most = Math.floor(left / (queryWidth + valueWidth + 2));
  return Math.min(8 * Math.floor(most / 8), 8 * Math.ceil(maxRows / 8));
}

function checkArguments(args: MlaPrefillArguments): void {
  const { kvB, heads, nopeWidth, valueWidth, latentWidth } = args;
  checkInteger("maxRows", args.maxRows, { min: 1 });
  checkInteger("heads", heads, { min: 1 });
  checkFinite("softmaxScale", args.softmaxScale, { min: Number.MIN_VALUE });
  for (const name of ["nopeWidth", "ropeWidth", "valueWidth", "latentWidth"] as const) {
    const width = checkInteger(name, args[name], { min: 8 });
    if (width % 8 !== 0) throw new RangeError(`${name} must be a multiple of 8, got ${width}`);
  }
  if (args.cache.dtype === "fp8" && latentWidth % 128 !== 0) {
    throw new RangeError(`latentWidth must be a multiple of 128 for an fp8 cache, got ${latentWidth}`);
  }
  checkWeight("kvB", kvB);
  const rows = heads * (nopeWidth + valueWidth);
  if (kvB.rows !== rows || kvB.columns !== latentWidth) {
    throw new RangeError(`kvB must be [${rows}, ${latentWidth}], got [${kvB.rows}, ${kvB.columns}]`);
  }
  latentCachePages(args.cache, args);
  if (args.maxLen !== undefined) checkInteger("maxLen", args.maxLen, { min: 1 });
}

function checkDtypes(args: MlaPrefillArguments): void {
  checkOneOf("qDtype", args.qDtype ?? "f32", ["f32"]);
  checkOneOf("outDtype", args.outDtype ?? "f32", ["f32"]);
}

function checkForCpu(args: MlaPrefillArguments): void {
  checkDtypes(args);
  if (passRowsOf(args) < 8) {
    throw new RangeError(
      `latentWidth: ${args.latentWidth} and heads this wide do not fit a thread's scratch memory`,
    );
  }
}

/**
 * Causal attention of a chunk of one sequence over its paged latent cache, by expanding it: k = [W_UK c ; k_r] and
 * v = W_UV c of 64 tokens at a time, and an online softmax (DeepSeek-V2, arXiv 2405.04434, eq. 9–19; Milakov &
 * Gimelshein 2018). out = softmax(softmaxScale · q·k) v per head; a query that sees nothing gives 0. Throws RangeError
 * for widths that are no multiples of 8, disagree or are too large for the scratch memory.
 */
export function mlaPrefill(launch: Launch, args: MlaPrefillArguments): void {
  checkArguments(args);
  if (launch.target.kind === "cuda") {
    enqueueCuda(launch, args);
    return;
  }
  if (launch.target.kind === "webgpu") {
    checkDtypes(args);
    enqueueWebGpu(launch, args);
    return;
  }
  checkForCpu(args);
  const { heads, nopeWidth, ropeWidth, valueWidth, latentWidth, cache, kvB } = args;
  launch(
    kernel,
    heads,
    [args.q, cache.buffer, args.blockTable, args.cacheSeqlens, kvB.buffer, args.out, args.rowCount],
    [
      ...[heads, nopeWidth, ropeWidth, valueWidth, latentWidth, args.softmaxScale * Math.LOG2E],
      ...[latentDtypeCode(cache.dtype), cache.pageSize, dtypeCode[kvB.dtype], args.maxRows, passRowsOf(args)],
    ],
  );
}

/** Shape of a call for {@link mlaPrefillCost}; bytes per weight and per cache entry. */
export interface MlaPrefillShape {
  readonly rows: number;
  /** Cached tokens, the chunk's included. */
  readonly length: number;
  readonly heads: number;
  readonly nopeWidth: number;
  readonly ropeWidth: number;
  readonly valueWidth: number;
  readonly latentWidth: number;
  readonly weightBytes: number;
  readonly entryBytes: number;
}

/** FLOPs (expanding each cached token once, then the visible pairs) and bytes (each input and output once). */
export function mlaPrefillCost(shape: MlaPrefillShape): { flops: number; bytes: number } {
  const { rows, length, heads, nopeWidth, ropeWidth, valueWidth, latentWidth } = shape;
  const pairs = rows * (length - rows) + (rows * (rows + 1)) / 2;
  const expanded = 2 * length * latentWidth * (nopeWidth + valueWidth);
  const attended = 2 * pairs * (nopeWidth + ropeWidth + valueWidth);
  const weights = heads * (nopeWidth + valueWidth) * latentWidth * shape.weightBytes;
  const activations = 4 * rows * heads * (nopeWidth + ropeWidth + valueWidth);
  return { flops: heads * (expanded + attended), bytes: weights + activations + length * shape.entryBytes };
}
