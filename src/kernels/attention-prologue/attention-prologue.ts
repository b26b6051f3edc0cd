import { checkInteger } from "../../base/checks.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import {
  checkKeyValueWidths,
  type KeyValueCache,
  type KeyValueDtype,
  type KeyValueWidths,
  keyValueCachePages,
  keyValueDtypeCode,
  keyValueTokenBytes,
} from "../common/key-value-cache.ts";
import { checkBytes } from "../common/weight.ts";
import wgsl from "./attention-prologue.wgsl.ts";

/** One record per launch of `attentionPrologue`. n is `maxRows`, the tokens recorded. */
export interface AttentionPrologueArguments extends KeyValueWidths {
  /** f32 [n, heads + 2 · kvHeads, headWidth]: a token's queries, then its keys, then its values. */
  readonly qkv: DeviceBuffer;
  readonly heads: number;
  /** i32 [n]: positions, each within the rotary table. */
  readonly positions: DeviceBuffer;
  /** f32 [positions, headWidth]: cosines, then sines. */
  readonly rotaryTable: DeviceBuffer;
  /** i32 [n]: page · pageSize + offset; −1 appends nothing. */
  readonly slots: DeviceBuffer;
  readonly cache: KeyValueCache;
  /** f32 [n, heads, headWidth]: rotated queries; not `qkv`. */
  readonly qOut: DeviceBuffer;
  /** i32 [1]: tokens in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

const kernel: KernelSource = {
  name: "attention-prologue",
  buffers: ["qkv", "positions", "rotaryTable", "slots", "keys", "values", "qOut", "rowCount"],
  scalars: [
    ["heads", "i32"],
    ["kvHeads", "i32"],
    ["width", "i32"],
    ["dtype", "i32"],
    ["pageSize", "i32"],
    ["cacheRows", "i32"],
  ],
  cpu: "attentionPrologue",
  cuda: { module: "attention-prologue.fatbin", function: "attentionPrologue", blockSize: 256 },
};

/**
 * What precedes attention over keys and values: rotates queries and keys in pairs (i, i + headWidth / 2) (RoFormer, arXiv
 * 2104.09864, eq. 15) and appends keys and values to the paged cache, rounded to nearest even. Throws TypeError or RangeError for
 * sizes it does not take and buffers that are too small.
 */
export function attentionPrologue(launch: Launch, args: AttentionPrologueArguments): void {
  const { qkv, positions, rotaryTable, slots, cache, qOut, rowCount } = args;
  const { heads, kvHeads, headWidth, maxRows } = args;
  checkKeyValueWidths(args);
  checkInteger("heads", heads, { min: 1 });
  checkInteger("maxRows", maxRows, { min: 1 });
  checkBytes("qkv", qkv, maxRows * (heads + 2 * kvHeads) * headWidth * 4);
  checkBytes("qOut", qOut, maxRows * heads * headWidth * 4);
  checkBytes("positions", positions, maxRows * 4);
  checkBytes("slots", slots, maxRows * 4);
  const cacheRows = keyValueCachePages(cache, args) * cache.pageSize;
  const buffers = [qkv, positions, rotaryTable, slots, cache.keys, cache.values, qOut, rowCount];
  const dtype = keyValueDtypeCode(cache.dtype);
  const webgpu = { code: wgsl, constants: { KV_DTYPE: dtype } };
  launch({ ...kernel, webgpu }, maxRows, buffers, [
    heads,
    kvHeads,
    headWidth,
    dtype,
    cache.pageSize,
    cacheRows,
  ]);
}

/** FLOPs and bytes of one call over `rows` tokens: queries and keys rotated, the token's entry written. */
export function attentionPrologueCost(
  rows: number,
  shape: KeyValueWidths & { readonly heads: number },
  dtype: KeyValueDtype,
): { flops: number; bytes: number } {
  const { heads, kvHeads, headWidth } = shape;
  const activations = 4 * (2 * heads + 2 * kvHeads) * headWidth;
  return {
    flops: 3 * rows * (heads + kvHeads) * headWidth,
    bytes: rows * (activations + keyValueTokenBytes(dtype, shape)),
  };
}
