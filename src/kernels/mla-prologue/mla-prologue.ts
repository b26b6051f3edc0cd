import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { type LatentCache, latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import type { LatentProjections } from "../common/latent-projections.ts";
import { checkBytes, checkWeight, dtypeCode } from "../common/weight.ts";
import { enqueueCuda } from "./mla-prologue.cuda.ts";
import { enqueueWebGpu } from "./mla-prologue.webgpu.ts";

/** Tokens that share one pass over a head's W_UK; BLOCK in mla-prologue.as.ts. */
const BLOCK = 4;

/**
 * One record per launch of `mlaPrologue`. n is `maxRows`, the tokens recorded. On CUDA, positions, slots and rowCount are written before the
 * program runs, not by a launch of it.
 */
export interface MlaPrologueArguments extends LatentProjections {
  /** decode: queries absorbed through W_UK; prefill: queries as they are, rotated. */
  readonly phase: "decode" | "prefill";
  /** i32 [n]: page · pageSize + offset in the pool of this layer; −1 appends nothing. */
  readonly slots: DeviceBuffer;
  /** The pool of one layer. */
  readonly cache: LatentCache;
  /** decode: [n, heads, latentWidth + ropeWidth]; prefill: [n, heads, nopeWidth + ropeWidth], may be `q` where both are f32. */
  readonly qOut: DeviceBuffer;
  /** Element type of qOut; default f32. CUDA also writes bf16 and f16. */
  readonly qOutDtype?: WeightDType;
  /** i32 [1]: tokens in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
  readonly heads: number;
  /** d_n, a multiple of 4. */
  readonly nopeWidth: number;
  /** d_r, a multiple of 4. */
  readonly ropeWidth: number;
  /** d_v. */
  readonly valueWidth: number;
  /** d_c, a multiple of 8. */
  readonly latentWidth: number;
}

const append: KernelSource = {
  name: "mla-prologue.append",
  buffers: ["latent", "normWeight", "positions", "rotaryTable", "slots", "cache", "rowCount"],
  scalars: [
    ["latentWidth", "i32"],
    ["ropeWidth", "i32"],
    ["epsilon", "f32"],
    ["interleaved", "i32"],
    ["cacheDtype", "i32"],
    ["cacheRows", "i32"],
  ],
  cpu: "mlaPrologueAppend",
};

const absorb: KernelSource = {
  name: "mla-prologue.absorb",
  buffers: ["q", "positions", "rotaryTable", "queryScale", "kvB", "qOut", "rowCount"],
  scalars: [
    ["heads", "i32"],
    ["nopeWidth", "i32"],
    ["ropeWidth", "i32"],
    ["valueWidth", "i32"],
    ["latentWidth", "i32"],
    ["interleaved", "i32"],
    ["hasQueryScale", "i32"],
    ["weightDtype", "i32"],
    ["blocks", "i32"],
  ],
  cpu: "mlaPrologueAbsorb",
};

const rotate: KernelSource = {
  name: "mla-prologue.rotate",
  buffers: ["q", "positions", "rotaryTable", "queryScale", "qOut", "rowCount"],
  scalars: [
    ["heads", "i32"],
    ["nopeWidth", "i32"],
    ["ropeWidth", "i32"],
    ["interleaved", "i32"],
    ["hasQueryScale", "i32"],
  ],
  cpu: "mlaPrologueRotate",
};

function checkArguments(args: MlaPrologueArguments): void {
  checkOneOf("phase", args.phase, ["decode", "prefill"]);
  checkOneOf("rotary", args.rotary, ["interleaved", "halves"]);
  checkWeight("kvB", args.kvB);
  checkInteger("maxRows", args.maxRows, { min: 1 });
  checkInteger("heads", args.heads, { min: 1 });
  checkInteger("valueWidth", args.valueWidth, { min: 1 });
  checkFinite("epsilon", args.epsilon, { min: 0 });
  for (const [name, multiple] of [
    ["nopeWidth", 4],
    ["ropeWidth", 4],
    ["latentWidth", 8],
  ] as const) {
    const width = checkInteger(name, args[name], { min: multiple });
    if (width % multiple !== 0)
      throw new RangeError(`${name} must be a multiple of ${multiple}, got ${width}`);
  }
  if (args.cache.dtype === "fp8" && args.latentWidth % 128 !== 0) {
    throw new RangeError(`latentWidth must be a multiple of 128 for an fp8 cache, got ${args.latentWidth}`);
  }
  checkKvB(args);
  const width = args.heads * ((args.phase === "decode" ? args.latentWidth : args.nopeWidth) + args.ropeWidth);
  checkBytes("qOut", args.qOut, args.maxRows * width * bytesPerElement(args.qOutDtype ?? "f32"));
}

function checkKvB({ kvB, heads, nopeWidth, valueWidth, latentWidth }: MlaPrologueArguments): void {
  const rows = heads * (nopeWidth + valueWidth);
  if (kvB.rows !== rows || kvB.columns !== latentWidth) {
    throw new RangeError(`kvB must be [${rows}, ${latentWidth}], got [${kvB.rows}, ${kvB.columns}]`);
  }
}

/**
 * What precedes attention: appends RMSNorm(latent) and its rotated keys to the paged cache, and makes the queries:
 * [W_UKᵀ q_n ; RoPE(q_r)] for decode, [q_n ; RoPE(q_r)] for prefill (DeepSeek-V2, arXiv 2405.04434, eq. 9–19). 16-bit
 * caches round to nearest even, fp8 entries are those of base/fp8-entry.ts. Throws RangeError for widths that the
 * kernels do not take or that disagree.
 */
export function mlaPrologue(launch: Launch, args: MlaPrologueArguments): void {
  checkArguments(args);
  if (launch.target.kind === "cuda") {
    enqueueCuda(launch, args, { append, rotate, absorb });
    return;
  }
  checkOneOf("qOutDtype", args.qOutDtype ?? "f32", ["f32"]);
  if (launch.target.kind === "webgpu") {
    enqueueWebGpu(launch, args);
    return;
  }
  const { heads, nopeWidth, ropeWidth, valueWidth, latentWidth, maxRows, positions, rotaryTable } = args;
  const interleaved = args.rotary === "interleaved" ? 1 : 0;
  launch(
    append,
    maxRows,
    [args.latent, args.normWeight, positions, rotaryTable, args.slots, args.cache.buffer, args.rowCount],
    [
      latentWidth,
      ropeWidth,
      args.epsilon,
      interleaved,
      latentDtypeCode(args.cache.dtype),
      latentCachePages(args.cache, args) * args.cache.pageSize,
    ],
  );
  const scale = args.queryScale ?? positions;
  const hasScale = args.queryScale === null ? 0 : 1;
  if (args.phase === "prefill") {
    const buffers = [args.q, positions, rotaryTable, scale, args.qOut, args.rowCount];
    launch(rotate, maxRows, buffers, [heads, nopeWidth, ropeWidth, interleaved, hasScale]);
    return;
  }
  const blocks = Math.ceil(maxRows / BLOCK);
  const weightDtype = dtypeCode[args.kvB.dtype];
  launch(
    absorb,
    heads * blocks,
    [args.q, positions, rotaryTable, scale, args.kvB.buffer, args.qOut, args.rowCount],
    [heads, nopeWidth, ropeWidth, valueWidth, latentWidth, interleaved, hasScale, weightDtype, blocks],
  );
}

/** Shape of a call for {@link mlaPrologueCost}; bytes per weight and per cache entry. */
export interface MlaPrologueShape {
  readonly phase: "decode" | "prefill";
  readonly rows: number;
  readonly heads: number;
  readonly nopeWidth: number;
  readonly ropeWidth: number;
  readonly latentWidth: number;
  readonly weightBytes: number;
  readonly entryBytes: number;
}

/** FLOPs and bytes of one call: W_UK once (decode), activations, and the appended entries. */
export function mlaPrologueCost(shape: MlaPrologueShape): { flops: number; bytes: number } {
  const { rows, heads, nopeWidth, ropeWidth, latentWidth } = shape;
  const isDecode = shape.phase === "decode";
  const product = heads * nopeWidth * latentWidth;
  const queries =
    heads * (nopeWidth + ropeWidth) + heads * ((isDecode ? latentWidth : nopeWidth) + ropeWidth);
  return {
    flops: rows * (4 * latentWidth + 3 * ropeWidth * (heads + 1) + (isDecode ? 2 * product : 0)),
    bytes:
      rows * (4 * (queries + latentWidth + ropeWidth) + shape.entryBytes) +
      (isDecode ? product * shape.weightBytes : 0),
  };
}
