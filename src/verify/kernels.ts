import { attentionDecodeCases } from "../kernels/attention-decode/cases.ts";
import { attentionPrologueCases } from "../kernels/attention-prologue/cases.ts";
import type { KernelCase } from "../kernels/common/cases/kernel-case.ts";
import { embeddingCases } from "../kernels/embedding/cases.ts";
import { expertMlpCases } from "../kernels/expert-mlp/cases.ts";
import { expertRoutingCases } from "../kernels/expert-routing/cases.ts";
import { gatedMlpCases } from "../kernels/gated-mlp/cases.ts";
import { linearCases } from "../kernels/linear/cases.ts";
import { mlaDecodeCases } from "../kernels/mla-decode/cases.ts";
import { mlaPrefillCases } from "../kernels/mla-prefill/cases.ts";
import { mlaPrologueCases } from "../kernels/mla-prologue/cases.ts";
import { rmsNormCases } from "../kernels/rms-norm/cases.ts";
import { samplingCases } from "../kernels/sampling/cases.ts";
import { standardAttentionCases } from "../kernels/standard-attention/cases.ts";
import { mlaEpilogueCases } from "./mla-epilogue-cases.ts";
import { mlaLayerCases } from "./mla-layer-cases.ts";

/** The cases of every kernel, in the order in which a layer runs them; mla-decode with its many shapes comes last. */
export function allCases(): KernelCase[] {
  return [
    ...embeddingCases(),
    ...rmsNormCases(),
    ...linearCases(),
    ...mlaPrologueCases(),
    ...mlaPrefillCases(),
    ...mlaEpilogueCases(),
    ...mlaLayerCases(),
    ...gatedMlpCases(),
    ...expertRoutingCases(),
    ...expertMlpCases(),
    ...samplingCases(),
    ...attentionPrologueCases(),
    ...attentionDecodeCases(),
    ...standardAttentionCases(),
    ...mlaDecodeCases(),
  ];
}
