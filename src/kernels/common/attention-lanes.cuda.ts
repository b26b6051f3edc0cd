import type { AttentionSizes } from "./attention-record.ts";
import type { KeyValueDtype } from "./key-value-cache.ts";

/** Rows that the CUDA kernels take at once, of those that share a head's keys. */
const MOST_ROWS = 4;

/** Which build of a CUDA kernel over keys and values takes these sizes. */
export interface AttentionBuild {
  /** Rows a block. */
  readonly rows: number;
  /** Blocks of rows for each stored head. */
  readonly rowBlocks: number;
  /** `dtype_lanes_rows`: lanes that share a token, 8 channels each. */
  readonly suffix: string;
  /** `dtype_rows`. */
  readonly shortSuffix: string;
}

/** The build for multi-head caches reads each key for one row; the other shares it between 4. */
export function attentionBuild(
  { sQ, heads, kvHeads, headWidth }: AttentionSizes,
  dtype: KeyValueDtype,
): AttentionBuild {
  const span = (sQ * heads) / kvHeads;
  const rows = span === 1 ? 1 : MOST_ROWS;
  const lanes = 2 ** Math.max(1, Math.ceil(Math.log2(headWidth / 8)));
  const suffix = `${dtype}_${lanes}_${rows}`;
  return { rows, rowBlocks: Math.ceil(span / rows), suffix, shortSuffix: `${dtype}_${rows}` };
}
