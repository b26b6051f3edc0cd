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
}

/** Bytes from one row of a tile to the next, and f16 values of a row that are in it. */
const PITCH_BYTES = 80;
export const DEPTH = 32;

/** Rows by rows of weights. A 2,048 × 6,144 × 2,048 product on an H100: 184 TFLOPS; 122 with `slim`, 157 with `tall`. */
const large: Layout = { ROW_MATRICES: 4, PAIRS: 2, ROW_GROUPS: 2, OUTPUT_GROUPS: 2 };
/** 128 by 64, for outputs of no multiple of 128 and for grids that fill no GPU: 576 outputs in 69 µs instead of 147. */
const slim: Layout = { ROW_MATRICES: 4, PAIRS: 1, ROW_GROUPS: 2, OUTPUT_GROUPS: 2 };
/** 256 by 128, where two matrices leave half as many outputs, through workgroup memory: 165 TFLOPS instead of 116. */
const tall: Layout = { ROW_MATRICES: 4, PAIRS: 2, ROW_GROUPS: 4, OUTPUT_GROUPS: 2 };
/** 64 by 64, for few rows. */
const small: Layout = { ROW_MATRICES: 2, PAIRS: 1, ROW_GROUPS: 2, OUTPUT_GROUPS: 2 };

/** Workgroups from which `large` leaves no GPU half empty. */
const ENOUGH = 200;

export const layoutRows = ({ ROW_MATRICES, ROW_GROUPS }: Layout): number => 16 * ROW_MATRICES * ROW_GROUPS;

/** Rows of weights of a tile: of each of two matrices half as many. */
export const layoutWeightRows = ({ PAIRS, OUTPUT_GROUPS }: Layout): number => 32 * PAIRS * OUTPUT_GROUPS;

/** Invocations of a workgroup. */
const invocations = ({ ROW_GROUPS, OUTPUT_GROUPS }: Layout) => 32 * ROW_GROUPS * OUTPUT_GROUPS;

/** Rows of either tile that a workgroup fetches at once, an invocation eight values. */
export const layoutFetchedRows = (layout: Layout): number => invocations(layout) / (DEPTH / 8);

/** Whether an adapter has room for a workgroup: two tiles, and a pair of matrices of each subgroup. */
function fits(layout: Layout, limits: WebGpuLimits | undefined): boolean {
  const tiles = PITCH_BYTES * (layoutRows(layout) + layoutWeightRows(layout));
  const bytes = tiles + 2048 * layout.ROW_GROUPS * layout.OUTPUT_GROUPS;
  return limits !== undefined && bytes <= limits.workgroupBytes && invocations(layout) <= limits.invocations;
}

/** Whether an adapter has room for every layout but `tall`. */
export const hasRoomForLayouts = (limits: WebGpuLimits | undefined): boolean => fits(large, limits);

/** The layout for a product of so many rows. */
export function chooseLayout(
  limits: WebGpuLimits | undefined,
  weight: Pick<WeightMatrix, "rows">,
  isGated: boolean,
  maxRows: number,
): Layout {
  if (maxRows <= layoutRows(small)) return small;
  if (isGated) return maxRows > layoutRows(large) && fits(tall, limits) ? tall : large;
  const outputs = layoutWeightRows(large);
  const workgroups = ceilDivide(maxRows, layoutRows(large)) * ceilDivide(weight.rows, outputs);
  return weight.rows % outputs !== 0 || workgroups < ENOUGH ? slim : large;
}
