import type { WeightDType } from "../../base/dtypes.ts";
import { bytesPerElement } from "../../base/dtypes.ts";
import type { CudaEntry, DeviceLimits } from "../../device/device.ts";

/** WARPS, STEP and the portable STAGES of streamed-products.cuh. */
const WARPS = 8;
const STEP = 64;
const STAGES = 2;
/** Blocks that one multiprocessor is given at most. */
const BLOCKS_A_UNIT = 2;

/** Which instance of the kernel template runs. */
export interface StreamedVariant {
  readonly dtype: WeightDType;
  /** Tiles of 16 weight rows that a block takes at a time. */
  readonly parts: 1 | 2;
  /** Groups of 8 rows of activations. */
  readonly columns: 1 | 2;
}

/** Whether the copy engine brings the weights, in the machine code for Hopper; other GPUs run the portable one. */
const copiesInBulk = ({ features }: DeviceLimits) => features.has("sm_90");

/** Bytes of the rings. */
function ringBytes({ dtype, parts }: StreamedVariant, isBulk: boolean): number {
  const size = bytesPerElement(dtype);
  if (!isBulk) return WARPS * STAGES * parts * 4 * (size / 2) * 512;
  const stages = parts * size > 6 ? 2 : 12 / (parts * size);
  return stages * (parts * 16 * (STEP * WARPS * size + 64) + 16);
}

/** Bytes of dynamic shared memory of a block: the rings, the warps' sums, and their sums of squares. */
function sharedBytesOf(variant: StreamedVariant, isBulk: boolean): number {
  const { parts, columns } = variant;
  const sums = WARPS * columns * 8 * (parts * 16 + 4) * 4;
  return ringBytes(variant, isBulk) + sums + WARPS * columns * 8 * 4;
}

/** How CUDA starts a kernel over streamProducts. */
export function streamedEntry(
  module: string,
  name: string,
  variant: StreamedVariant,
  limits: DeviceLimits,
): CudaEntry {
  const isBulk = copiesInBulk(limits);
  return {
    ...{ module, function: name, blockSize: (WARPS + (isBulk ? 1 : 0)) * 32, overlaps: true },
    sharedBytes: sharedBytesOf(variant, isBulk),
  };
}

/** Blocks for `tiles` tiles: each goes through its share of them. */
export function streamedGrid(tiles: number, { computeUnits }: DeviceLimits): number {
  return Math.max(1, Math.min(tiles, computeUnits * BLOCKS_A_UNIT));
}

/** Groups of 8 activations that one pass over the weights serves. */
export function columnsFor(maxRows: number): 1 | 2 {
  return maxRows <= 8 ? 1 : 2;
}
