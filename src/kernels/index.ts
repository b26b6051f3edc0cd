export {
  attentionDecode,
  attentionDecodeCost,
  attentionDecodeWorkspaceBytes,
} from "./attention-decode/attention-decode.ts";
export {
  type AttentionPrologueArguments,
  attentionPrologue,
  attentionPrologueCost,
} from "./attention-prologue/attention-prologue.ts";
export type { AttentionArguments, AttentionSizes } from "./common/attention-record.ts";
export {
  type KeyValueCache,
  type KeyValueDtype,
  keyValueDtypes,
  keyValueTokenBytes,
} from "./common/key-value-cache.ts";
export { type LatentCache, type LatentDtype, latentDtypes, latentEntryBytes } from "./common/latent-cache.ts";
export { type MlaDecodeSizes, mlaDecodeWorkspaceBytes } from "./common/mla-partials.ts";
export type { WeightMatrix } from "./common/weight.ts";
export { type EmbeddingArguments, embedding, embeddingCost } from "./embedding/embedding.ts";
export {
  type ExpertGateUp,
  type ExpertMlpArguments,
  type ExpertMlpShape,
  expertMlp,
  expertMlpCost,
  expertMlpWorkspaceBytes,
} from "./expert-mlp/expert-mlp.ts";
export {
  type ExpertRoutingArguments,
  expertRouting,
  expertRoutingCost,
} from "./expert-routing/expert-routing.ts";
export {
  type GatedMlpArguments,
  type GatedMlpGateUpArguments,
  gatedMlp,
  gatedMlpCost,
  gatedMlpGateUp,
} from "./gated-mlp/gated-mlp.ts";
export { type LinearArguments, linear, linearCost } from "./linear/linear.ts";
export { type MlaDecodeCudaOptions, queryDtypeOn } from "./mla-decode/mla-decode.cuda.ts";
export {
  type MlaDecodeArguments,
  type MlaDecodePartialArguments,
  type MlaDecodeTokens,
  mlaDecode,
  mlaDecodeCost,
  mlaDecodePartial,
} from "./mla-decode/mla-decode.ts";
export { type MlaEpilogueArguments, mlaEpilogue, mlaEpilogueCost } from "./mla-epilogue/mla-epilogue.ts";
export {
  type MlaPrefillArguments,
  type MlaPrefillShape,
  mlaPrefill,
  mlaPrefillCost,
} from "./mla-prefill/mla-prefill.ts";
export {
  type MlaPrologueArguments,
  type MlaPrologueShape,
  mlaPrologue,
  mlaPrologueCost,
} from "./mla-prologue/mla-prologue.ts";
export { type RmsNormArguments, rmsNorm, rmsNormCost } from "./rms-norm/rms-norm.ts";
export { packSamplingParams, SAMPLING_PARAMS_BYTES, type SamplingParams } from "./sampling/params.ts";
export { type SamplingArguments, sampling, samplingCost } from "./sampling/sampling.ts";
export {
  standardAttention,
  standardAttentionCost,
  standardAttentionWorkspaceBytes,
} from "./standard-attention/standard-attention.ts";
