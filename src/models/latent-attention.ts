import type { LatentCache } from "../kernels/common/latent-cache.ts";
import { mlaPrefill } from "../kernels/mla-prefill/mla-prefill.ts";
import { mlaPrologue } from "../kernels/mla-prologue/mla-prologue.ts";
import { latentDecode } from "./latent-decode.ts";
import type { LayerContext } from "./layers.ts";
import type { AttentionWeights } from "./model-weights.ts";
import { softmaxScale } from "./rope.ts";

/** What the prologue reads beside queries and latents, whatever the phase. */
function inputsOf(context: LayerContext, weights: AttentionWeights, cache: LatentCache) {
  const { config, tables, inputs, buffers } = context;
  const { heads, qkNopeHeadDim, vHeadDim, kvLoraRank, qkRopeHeadDim, rotary, latentNormEps } =
    config.attention;
  const { positions, slots, rowCount } = inputs;
  return {
    ...{ heads, nopeWidth: qkNopeHeadDim, ropeWidth: qkRopeHeadDim, valueWidth: vHeadDim },
    ...{ latentWidth: kvLoraRank, q: buffers.query, latent: buffers.latent, cache, kvB: weights.kvB },
    ...{ normWeight: weights.latentNorm, epsilon: latentNormEps, positions, slots, rowCount, rotary },
    ...{ rotaryTable: tables.rotary, queryScale: tables.queryScale, maxRows: buffers.maxRows },
  };
}

type Inputs = ReturnType<typeof inputsOf>;

function prefill(context: LayerContext, shared: Inputs): void {
  const { launch, config, inputs, buffers } = context;
  const { query: q, dtype: qDtype } = buffers.attention;
  mlaPrologue(launch, { ...shared, phase: "prefill", qOut: q, qOutDtype: qDtype });
  mlaPrefill(launch, {
    ...{ ...shared, q, qDtype, out: buffers.values, maxLen: context.maxLength },
    ...{ blockTable: inputs.blockTable, cacheSeqlens: inputs.cacheSeqlens },
    softmaxScale: softmaxScale(config),
  });
}

function decode(context: LayerContext, shared: Inputs): void {
  const { launch, config, inputs, buffers } = context;
  const { query: absorbed, dtype, merged } = buffers.attention;
  const { blockTable, maxPages, cacheSeqlens } = inputs;
  latentDecode(launch, {
    ...{ ...shared, absorbed, dtype, merged, blockTable, maxPages, cacheSeqlens, out: buffers.values },
    ...{ workspace: context.attentionWorkspace!, maxLen: context.maxLength },
    softmaxScale: softmaxScale(config),
  });
}

/**
 * From a layer's projections to its heads' values: prologue, attention and epilogue; expanded from the cache for prompts, over
 * the latents themselves for single tokens. What lies between them has the element type that suits the device.
 */
export function latentAttention(context: LayerContext, weights: AttentionWeights, cache: LatentCache): void {
  const shared = inputsOf(context, weights, cache);
  if (context.buffers.attention.phase === "prefill") prefill(context, shared);
  else decode(context, shared);
}
