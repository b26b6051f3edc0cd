import type { WeightDType } from "../base/dtypes.ts";
import type { DeviceBuffer, Launch } from "../device/device.ts";
import { mlaDecode, mlaDecodePartial } from "../kernels/mla-decode/mla-decode.ts";
import { mlaEpilogue } from "../kernels/mla-epilogue/mla-epilogue.ts";
import { type MlaLayerArguments, mlaLayer, prefersMlaLayer } from "../kernels/mla-layer/mla-layer.ts";
import { mlaPrologue } from "../kernels/mla-prologue/mla-prologue.ts";

/** Attention of one new token of each sequence, from a layer's projections to its heads' values; fields as `mlaLayer` has them. */
export interface LatentDecodeArguments extends MlaLayerArguments {
  /** [n, heads, latentWidth + ropeWidth] in `dtype`: a place for the absorbed queries. */
  readonly absorbed: DeviceBuffer;
  /** Element type in which queries meet the cache. */
  readonly dtype: WeightDType;
  /** Results of attention in `dtype` where that has 16 bits, and f32 [n, heads]; null where the epilogue merges. */
  readonly merged: { readonly attended: DeviceBuffer; readonly lse: DeviceBuffer } | null;
  /** As `mlaDecodePartial` wants it. */
  readonly workspace: DeviceBuffer;
  /** Longest sequence that can be recorded, in tokens. */
  readonly maxLen: number;
}

/** Prologue, attention and epilogue: in one launch where the device has it and is faster with it, or one after the other. */
export function latentDecode(launch: Launch, args: LatentDecodeArguments): void {
  if (args.merged !== null && prefersMlaLayer(launch.target, args)) mlaLayer(launch, args);
  else latentStages(launch, args);
}

/** {@link latentDecode}, one stage after the other. */
export function latentStages(launch: Launch, args: LatentDecodeArguments): void {
  const { absorbed, dtype, merged, workspace, maxRows, rowCount: batchCount } = args;
  mlaPrologue(launch, { ...args, phase: "decode", qOut: absorbed, qOutDtype: dtype });
  const sizes = { ...args, batch: maxRows, sQ: 1, batchCount };
  const attention = { ...sizes, q: absorbed, mask: "causal" } as const;
  if (merged === null) {
    mlaDecodePartial(launch, attention);
    mlaEpilogue(launch, { ...sizes, partials: workspace });
    return;
  }
  const { attended, lse } = merged;
  mlaDecode(launch, { ...attention, qDtype: dtype, out: attended, outDtype: dtype, lse });
  mlaEpilogue(launch, { ...sizes, attended, attendedDtype: dtype });
}
