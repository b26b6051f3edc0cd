import { ceilDivide } from "../../base/integers.ts";
import type { WebGpuLimits } from "../../device/device.ts";
import type { WeightMatrix } from "./weight.ts";

/** How a workgroup of projection.subgroup-matrix.wgsl is laid out. */
export interface Layout {
  /** Of 16 rows, of a subgroup. */
  readonly ROW_MATRICES: number;
  /** Of matrices of 16 outputs, of a subgroup. */
  readonly PAIRS: number;
  /** Subgroups along the rows, and along the outputs. */
  readonly ROW_GROUPS: number;
  readonly OUTPUT_GROUPS: number;
  /** Subgroups that hand results over through the same workgroup memory, one after another. */
  readonly TURNS: number;
}

/** Bytes from one row of a tile to the next, and f16 values of a row that are in it. */
const PITCH_BYTES = 80;
export const DEPTH = 32;

/**
 * 128 rows by 128 rows of weights: 184 TFLOPS (2,048 × 6,144 × 2,048, H100; 122 with `slim`). 24 KiB of workgroup memory, with two turns
 * where results pass through it: NVIDIA's driver runs two such workgroups at a time on a multiprocessor, of larger ones one.
 */
const large: Layout = { ROW_MATRICES: 4, PAIRS: 2, ROW_GROUPS: 2, OUTPUT_GROUPS: 2, TURNS: 2 };
/** 128 by 64, for outputs of no multiple of 128 and for grids that fill no GPU: 576 outputs in 69 µs instead of 147. */
const slim: Layout = { ROW_MATRICES: 4, PAIRS: 1, ROW_GROUPS: 2, OUTPUT_GROUPS: 2, TURNS: 1 };
/** 64 by 64, for few rows. */
const small: Layout = { ROW_MATRICES: 2, PAIRS: 1, ROW_GROUPS: 2, OUTPUT_GROUPS: 2, TURNS: 1 };

/** Workgroups from which `large` leaves no GPU half empty. */
const ENOUGH = 200;

export const layoutRows = ({ ROW_MATRICES, ROW_GROUPS }: Layout): number => 16 * ROW_MATRICES * ROW_GROUPS;

/** Rows of weights of a tile: of each of two matrices half as many. */
export const layoutWeightRows = ({ PAIRS, OUTPUT_GROUPS }: Layout): number => 32 * PAIRS * OUTPUT_GROUPS;

/** Invocations of a workgroup. */
const invocations = ({ ROW_GROUPS, OUTPUT_GROUPS }: Layout) => 32 * ROW_GROUPS * OUTPUT_GROUPS;

/** Rows of either tile that a workgroup fetches at once, an invocation eight values. */
export const layoutFetchedRows = (layout: Layout): number => invocations(layout) / (DEPTH / 8);

/** Bytes of workgroup memory: two tiles, and a pair of matrices of each subgroup whose turn it is. */
const workgroupBytes = (layout: Layout) =>
  PITCH_BYTES * (layoutRows(layout) + layoutWeightRows(layout)) +
  (2048 * layout.ROW_GROUPS * layout.OUTPUT_GROUPS) / layout.TURNS;

/** Whether an adapter has room for a workgroup of every layout. */
export function hasRoomForLayouts(limits: WebGpuLimits | undefined): boolean {
  const fits = (layout: Layout) => workgroupBytes(layout) <= (limits?.workgroupBytes ?? 0);
  return [large, slim, small].every(fits);
}

/** The layout for a product of so many rows. */
export function chooseLayout(weight: Pick<WeightMatrix, "rows">, isGated: boolean, maxRows: number): Layout {
  if (maxRows <= layoutRows(small)) return small;
  if (isGated) return large;
  const outputs = layoutWeightRows(large);
  const workgroups = ceilDivide(maxRows, layoutRows(large)) * ceilDivide(weight.rows, outputs);
  return weight.rows % outputs !== 0 || workgroups < ENOUGH ? slim : large;
}
