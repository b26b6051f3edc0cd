import type { LatentCache } from "../kernels/common/latent-cache.ts";
import { mlaDecode, mlaDecodePartial } from "../kernels/mla-decode/mla-decode.ts";
import { mlaEpilogue } from "../kernels/mla-epilogue/mla-epilogue.ts";
import { mlaPrefill } from "../kernels/mla-prefill/mla-prefill.ts";
import { mlaPrologue } from "../kernels/mla-prologue/mla-prologue.ts";
import type { LayerContext } from "./layers.ts";
import type { AttentionWeights } from "./model-weights.ts";
import { softmaxScale } from "./rope.ts";

function widthsOf({ config }: LayerContext) {
  const { heads, qkNopeHeadDim, vHeadDim, kvLoraRank, qkRopeHeadDim } = config.attention;
  return {
    heads,
    nopeWidth: qkNopeHeadDim,
    ropeWidth: qkRopeHeadDim,
    valueWidth: vHeadDim,
    latentWidth: kvLoraRank,
  };
}

function prologue(context: LayerContext, weights: AttentionWeights, cache: LatentCache): void {
  const { launch, config, tables, inputs, buffers } = context;
  const { positions, slots, rowCount } = inputs;
  const { phase, dtype, query: qOut } = buffers.attention;
  mlaPrologue(launch, {
    ...{ phase, q: buffers.query, qOut, qOutDtype: dtype, latent: buffers.latent, cache },
    ...{ normWeight: weights.latentNorm, epsilon: config.attention.latentNormEps, kvB: weights.kvB },
    ...{ positions, rotaryTable: tables.rotary, rotary: config.attention.rotary },
    ...{ queryScale: tables.queryScale, slots, rowCount, maxRows: buffers.maxRows },
    ...widthsOf(context),
  });
}

function prefill(context: LayerContext, { kvB }: AttentionWeights, cache: LatentCache): void {
  const { launch, config, inputs, buffers } = context;
  const { rowCount, blockTable, cacheSeqlens } = inputs;
  const { query: q, dtype: qDtype } = buffers.attention;
  mlaPrefill(launch, {
    ...{ q, qDtype, cache, kvB, blockTable, cacheSeqlens, rowCount, out: buffers.values },
    ...{ maxRows: buffers.maxRows, maxLen: context.maxLength, softmaxScale: softmaxScale(config) },
    ...widthsOf(context),
  });
}

function decode(context: LayerContext, { kvB }: AttentionWeights, cache: LatentCache): void {
  const { launch, config, inputs, buffers } = context;
  const { query: q, dtype: qDtype, merged } = buffers.attention;
  const sizes = { ...widthsOf(context), batch: buffers.maxRows, sQ: 1, maxLen: context.maxLength };
  const batchCount = inputs.rowCount;
  const workspace = context.attentionWorkspace!;
  const projection = { ...sizes, kvB, out: buffers.values, batchCount };
  const tokens = { blockTable: inputs.blockTable, maxPages: inputs.maxPages, mask: "causal" } as const;
  const attention = {
    ...{ ...sizes, ...tokens, q, cache, cacheSeqlens: inputs.cacheSeqlens, workspace, batchCount },
    softmaxScale: softmaxScale(config),
  };
  if (merged === null) {
    mlaDecodePartial(launch, attention);
    mlaEpilogue(launch, { ...projection, partials: workspace });
    return;
  }
  const { attended, lse } = merged;
  mlaDecode(launch, { ...attention, qDtype, out: attended, outDtype: qDtype, lse });
  mlaEpilogue(launch, { ...projection, attended, attendedDtype: qDtype });
}

/**
 * From a layer's projections to its heads' values: prologue, attention and epilogue; expanded from the cache for prompts, over
 * the latents themselves for single tokens. What lies between them has the element type that suits the device.
 */
export function latentAttention(context: LayerContext, weights: AttentionWeights, cache: LatentCache): void {
  prologue(context, weights, cache);
  if (context.buffers.attention.phase === "prefill") prefill(context, weights, cache);
  else decode(context, weights, cache);
}
