import type { CacheDType } from "../cache/latent-cache-pool.ts";
import { type CacheForm, cacheBytesPerToken, cacheShards, decodeFlopsPerCachedToken } from "./cache-forms.ts";
import type { Gpu } from "./gpus.ts";
import { type PlanModel, touchedExpertWeights } from "./plan-model.ts";

/** Shares of a GPU's published peaks that kernels reach. */
export interface Efficiency {
  /** Of the bandwidth, by kernels that memory binds. */
  readonly memory: number;
  /** Of the FLOPS, by kernels that arithmetic binds. */
  readonly compute: number;
}

/** What a step runs on and how it keeps its weights and its cache. */
export interface Deployment {
  readonly gpu: Gpu;
  /** GPUs that share one copy of the model. */
  readonly tensorParallel: number;
  readonly weightDtype: "bf16" | "fp8";
  readonly cacheDtype: CacheDType;
  readonly form: CacheForm;
  /** Of attention, and of everything that reads weights. */
  readonly efficiency: { readonly attention: Efficiency; readonly weights: Efficiency };
  /** Seconds of a step that no kernel accounts for. */
  readonly overheadSeconds: number;
}

/** Seconds of a step by part; each part is as long as the slower of its memory traffic and its arithmetic. */
export interface StepTime {
  readonly attention: number;
  readonly projections: number;
  /** Dense and shared MLPs. */
  readonly mlp: number;
  readonly experts: number;
  readonly head: number;
  /** All-reduces between the GPUs of one copy. */
  readonly communication: number;
  readonly overhead: number;
  readonly total: number;
}

/** Bytes of one weight. */
export const weightBytesEach = ({ weightDtype }: Pick<Deployment, "weightDtype">): number =>
  weightDtype === "fp8" ? 1 : 2;

/** max(bytes / bandwidth, FLOPs / peak) on one GPU, both peaks times their efficiency. */
export function rooflineSeconds(
  { flops, bytes }: { readonly flops: number; readonly bytes: number },
  gpu: Gpu,
  efficiency: Efficiency,
  peak: "bf16" | "fp8" = "bf16",
): number {
  const tflops = peak === "fp8" ? (gpu.fp8Tflops ?? gpu.bf16Tflops) : gpu.bf16Tflops;
  const memory = bytes / (gpu.bandwidthGBs * 1e9 * efficiency.memory);
  return Math.max(memory, flops / (tflops * 1e12 * efficiency.compute));
}

/**
 * Two all-reduces a layer of `tokens` hidden states in 2 bytes; a ring sends 2·(t − 1)/t of them over each GPU's link.
 */
export function communicationSeconds(model: PlanModel, { gpu, tensorParallel }: Deployment, tokens: number) {
  const bytes = 2 * model.layers * tokens * model.hiddenSize * 2;
  return (bytes * 2 * (tensorParallel - 1)) / tensorParallel / (gpu.linkGBs * 1e9);
}

/** The parts of a step over `tokens` tokens that read weights, and `attention` for the rest. */
function stepOf(
  model: PlanModel,
  deployment: Deployment,
  tokens: number,
  headRows: number,
  attention: number,
): StepTime {
  const { gpu, efficiency, tensorParallel, weightDtype } = deployment;
  const bytesEach = weightBytesEach(deployment);
  const part = (weights: number, flopWeights: number, rows: number) =>
    rooflineSeconds(
      {
        flops: (2 * flopWeights * rows) / tensorParallel,
        bytes: (weights * bytesEach) / tensorParallel,
      },
      gpu,
      efficiency.weights,
      weightDtype,
    );
  const { experts } = model;
  const routedWeights = experts ? experts.layers * experts.perToken * experts.weightsEach : 0;
  const parts = {
    attention,
    projections: part(model.attentionWeights, model.attentionWeights, tokens),
    mlp: part(model.mlpWeights, model.mlpWeights, tokens),
    experts: part(touchedExpertWeights(model, tokens), routedWeights, tokens),
    head: part(model.headWeights, model.headWeights, headRows),
    communication: communicationSeconds(model, deployment, tokens),
    overhead: deployment.overheadSeconds,
  };
  return { ...parts, total: Object.values(parts).reduce((sum, seconds) => sum + seconds, 0) };
}

/** One decode step of `batch` sequences of `context` cached tokens each. */
export function decodeStep(
  model: PlanModel,
  deployment: Deployment,
  batch: number,
  context: number,
): StepTime {
  const { form, cacheDtype, tensorParallel, gpu, efficiency } = deployment;
  const cached = batch * context;
  const bytes =
    (cached * cacheBytesPerToken(model, form, cacheDtype)) / cacheShards(model, form, tensorParallel);
  const flops = (cached * decodeFlopsPerCachedToken(model, form)) / tensorParallel;
  const attention = rooflineSeconds({ flops, bytes }, gpu, efficiency.attention);
  return stepOf(model, deployment, batch, batch, attention);
}

/**
 * The reading of a prompt of `tokens` tokens. Attention is over expanded heads in every form of the cache:
 * h·(d_n + d_r + d_v)·tokens² FLOPs a layer, half of the square for being causal, and the cache written once.
 */
export function prefillStep(model: PlanModel, deployment: Deployment, tokens: number): StepTime {
  const { form, cacheDtype, tensorParallel, gpu, efficiency } = deployment;
  const flops = (decodeFlopsPerCachedToken(model, "full") * (tokens * tokens)) / 2 / tensorParallel;
  const bytes =
    (tokens * cacheBytesPerToken(model, form, cacheDtype)) / cacheShards(model, form, tensorParallel);
  const attention = rooflineSeconds({ flops, bytes }, gpu, efficiency.attention);
  return stepOf(model, deployment, tokens, 1, attention);
}
