import type { DeviceBuffer } from "../../device/device.ts";
import { type MlaDecodeSizes, mlaDecodeSplits } from "./mla-partials.ts";

/** Tokens of a split at least: a tile on matrix units; without them splits are of 64. */
const LEAST_SPLIT = 32;
/** MOST_SPLITS of weigh-splits.wgsl. */
const MOST_SPLITS = 128;
/** Workgroups of a launch that fill a large GPU about twice; more splits than that cost more than they bring (docs/log.md). */
const ENOUGH_WORKGROUPS = 256;
const ROWS_OF_WORKGROUP = 16;

function floatsOf({ batch, sQ, heads, latentWidth }: MlaDecodeSizes): number {
  return batch * sQ * heads * (latentWidth + 2);
}

/** Splits that WebGPU would like: enough workgroups for a GPU, whatever the batch. */
function wantedSplits({ batch, sQ, heads, maxLen }: MlaDecodeSizes): number {
  const blocks = batch * Math.ceil((sQ * heads) / ROWS_OF_WORKGROUP);
  const splits = Math.min(
    Math.ceil(maxLen / LEAST_SPLIT),
    Math.ceil(ENOUGH_WORKGROUPS / blocks),
    MOST_SPLITS,
  );
  return Math.max(1, splits);
}

/** Bytes of a workspace with which WebGPU splits as finely as it would like; any that holds the common layout will do. */
export function mlaDecodeWebGpuWorkspaceBytes(sizes: MlaDecodeSizes): number {
  return 4 * Math.max(wantedSplits(sizes), mlaDecodeSplits(sizes.maxLen)) * floatsOf(sizes);
}

/** How WebGPU lays partial results out in a workspace: as finely split as it holds. */
export interface WebGpuPartials {
  readonly splits: number;
  /** Tokens of a split at least. */
  readonly leastSplit: number;
  /** f32 [batch, splits, sQ · heads, latentWidth]. */
  readonly partials: DeviceBuffer;
  /** f32 [batch, splits, sQ · heads, 2]: base-2 maximum and sum. */
  readonly stats: DeviceBuffer;
}

/** The layout for `sizes` in `workspace`; `wanted` splits instead of as many as are thought best. */
export function webGpuPartials(
  sizes: MlaDecodeSizes,
  workspace: DeviceBuffer,
  wanted = wantedSplits(sizes),
): WebGpuPartials {
  const held = Math.floor(workspace.bytes / (4 * floatsOf(sizes)));
  const splits = Math.max(1, Math.min(wanted, MOST_SPLITS, held));
  const rows = sizes.batch * splits * sizes.sQ * sizes.heads;
  const bytes = 4 * rows * sizes.latentWidth;
  return {
    ...{ splits, leastSplit: LEAST_SPLIT },
    partials: workspace.slice(0, bytes),
    stats: workspace.slice(bytes, 8 * rows),
  };
}
