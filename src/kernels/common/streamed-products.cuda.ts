import type { WeightDType } from "../../base/dtypes.ts";
import { bytesPerElement } from "../../base/dtypes.ts";
import type { CudaEntry, DeviceLimits } from "../../device/device.ts";

/** WARPS and STAGES of streamed-products.cuh. */
const WARPS = 8;
const STAGES = 2;
/** Blocks that one multiprocessor is given at most: what fits its shared memory with bf16 weights. */
const BLOCKS_A_UNIT = 2;

/** Which instance of the kernel template runs. */
export interface StreamedVariant {
  readonly dtype: WeightDType;
  /** Tiles of 16 weight rows that a block takes at a time. */
  readonly parts: 1 | 2 | 4;
  /** Groups of 8 rows of activations. */
  readonly columns: 1 | 2;
}

/** Bytes of dynamic shared memory of a block: the warps' rings, their sums, and the sums of squares. */
function sharedBytesOf({ dtype, parts, columns }: StreamedVariant): number {
  const stepBytes = parts * 4 * (bytesPerElement(dtype) / 2) * 512;
  const sums = WARPS * columns * 8 * (parts * 16 + 4) * 4;
  return WARPS * STAGES * stepBytes + sums + WARPS * columns * 8 * 4;
}

/** How CUDA starts a kernel over streamProducts. */
export function streamedEntry(module: string, name: string, variant: StreamedVariant): CudaEntry {
  return {
    ...{ module, function: name, blockSize: WARPS * 32, overlaps: true },
    sharedBytes: sharedBytesOf(variant),
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
