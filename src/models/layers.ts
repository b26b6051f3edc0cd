import type { DeviceBuffer, Launch } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import type { LatentCache } from "../kernels/common/latent-cache.ts";
import { expertMlp } from "../kernels/expert-mlp/expert-mlp.ts";
import { expertRouting } from "../kernels/expert-routing/expert-routing.ts";
import { gatedMlp, gatedMlpGateUp } from "../kernels/gated-mlp/gated-mlp.ts";
import { fusesExpertNorm, fusesNorm, linear, linearPair } from "../kernels/linear/linear.ts";
import { rmsNorm } from "../kernels/rms-norm/rms-norm.ts";
import { type BranchInput, branchInput, normedInput, roundedOf, streamedInput } from "./branch-input.ts";
import { latentAttention } from "./latent-attention.ts";
import type { AttentionWeights, GatedMlpWeights, LayerWeights, SparseMlpWeights } from "./model-weights.ts";
import type { StepBuffers } from "./step-buffers.ts";

/** What every layer of a step shares: the rows' tokens, where their entries go, and what they see. */
export interface StepInputs {
  /** i32 [1]: rows in use. */
  readonly rowCount: DeviceBuffer;
  /** i32 [n]: token ids. */
  readonly ids: DeviceBuffer;
  /** i32 [n]. */
  readonly positions: DeviceBuffer;
  /** i32 [n]: page · pageSize + offset of each row's entry. */
  readonly slots: DeviceBuffer;
  /** decode: i32 [n, maxPages], a row's own; prefill: i32 [maxPages], the one sequence's. */
  readonly blockTable: DeviceBuffer;
  readonly maxPages: number;
  /** decode: i32 [n], cached tokens each row sees, its own included; prefill: i32 [1], the sequence's. */
  readonly cacheSeqlens: DeviceBuffer;
}

/** Tables of a model that attention reads by position. */
export interface PositionTables {
  /** f32 [positions, d_r]: cosines, then sines. */
  readonly rotary: DeviceBuffer;
  /** f32 [positions], or null where queries are not scaled. */
  readonly queryScale: DeviceBuffer | null;
}

/** One step of one model as its layers see it. */
export interface LayerContext {
  readonly launch: Launch;
  readonly config: ModelConfig;
  readonly tables: PositionTables;
  readonly inputs: StepInputs;
  readonly buffers: StepBuffers;
  /** Partial results of split attention; for steps that decode. */
  readonly attentionWorkspace: DeviceBuffer | null;
  /** Longest sequence that can be recorded, in tokens. */
  readonly maxLength: number;
}

/** From the branch's input to `query` and `latent`. */
function project(context: LayerContext, { query, latent }: AttentionWeights, norm: DeviceBuffer): void {
  const { launch, config, buffers, inputs } = context;
  const rows = { rowCount: inputs.rowCount, maxRows: buffers.maxRows };
  const first = query.kind === "direct" ? query.project : query.compress;
  const input = branchInput(context, norm, [first, latent]);
  const out = query.kind === "direct" ? buffers.query : buffers.queryLatent;
  const second = { weight: latent, out: buffers.latent };
  linearPair(launch, { ...input, first: { weight: first, out }, second, ...rows });
  if (query.kind === "direct") return;
  const latentNorm = { weight: query.norm, epsilon: config.attention.latentNormEps };
  const expand = { weight: query.expand, out: buffers.query, mode: "store", ...rows } as const;
  if (fusesNorm(launch.target, buffers.maxRows)) {
    linear(launch, { x: buffers.queryLatent, norm: latentNorm, ...expand });
    return;
  }
  const { queryLatent: x } = buffers;
  rmsNorm(launch, { x, out: x, width: query.compress.rows, ...latentNorm, ...rows });
  linear(launch, { x, ...roundedOf(context), ...expand });
}

/** The attention branch, added to the residual stream. */
function attention(
  context: LayerContext,
  { inputNorm, attention: weights }: LayerWeights,
  cache: LatentCache,
): void {
  const { launch, config, inputs, buffers } = context;
  const rows = { rowCount: inputs.rowCount, maxRows: buffers.maxRows };
  project(context, weights, inputNorm);
  latentAttention(context, weights, cache);
  const scale = config.scaling.residual;
  const output = { x: buffers.values, weight: weights.output, out: buffers.hidden, scale, ...rows };
  linear(launch, { ...output, ...roundedOf(context), mode: "accumulate" });
}

function denseMlp(context: LayerContext, { gate, up, down }: GatedMlpWeights, input: BranchInput): void {
  const { launch, config, buffers, inputs } = context;
  const { hidden: out, mlp: workspace, maxRows } = buffers;
  const scale = config.scaling.residual;
  const rows = { rowCount: inputs.rowCount, maxRows };
  gatedMlp(launch, { ...input, gate, up, down, out, mode: "accumulate", scale, workspace, ...rows });
}

/** Which experts each row visits. */
function route(context: LayerContext, weights: SparseMlpWeights, { x, norm }: BranchInput): void {
  const { launch, config, buffers, inputs } = context;
  const { count: experts, perToken, router } = config.experts!;
  const { logits, ids, weights: expertWeights } = buffers.experts!;
  const rows = { rowCount: inputs.rowCount, maxRows: buffers.maxRows };
  // In float32 whatever the number of rows: a rounding error here would change which experts run.
  linear(launch, { x, norm, weight: weights.router, out: logits, mode: "store", ...rows });
  const routed = { logits, bias: weights.correctionBias, ids, weights: expertWeights };
  expertRouting(launch, { ...routed, experts, perToken, router, routerWeight: weights.router, ...rows });
}

/** The experts that {@link route} chose. */
function routedMlp(context: LayerContext, { gateUp, down }: SparseMlpWeights, input: BranchInput): void {
  const { launch, config, buffers, inputs } = context;
  const { count: experts, perToken, intermediateSize } = config.experts!;
  const { ids: expertIds, weights: expertWeights, workspace } = buffers.experts!;
  const { hidden: out, maxRows } = buffers;
  const { x, norm, rounded } = input;
  const shape = { experts, perToken, hidden: config.hiddenSize, intermediate: intermediateSize };
  const scale = config.scaling.residual;
  expertMlp(launch, {
    ...{ ...shape, x, norm, rounded, expertIds, expertWeights, gateUp, down, out },
    ...{ mode: "accumulate", scale, workspace, rowCount: inputs.rowCount, maxRows },
  });
}

/**
 * Routed and shared experts. Where readers norm the residual stream themselves, all have to read it before it is added to; the shared
 * gates and ups come after the routing then, so that their weights stream while it is computed.
 */
function sparseMlp(context: LayerContext, weights: SparseMlpWeights, input: BranchInput): void {
  const { launch, config, buffers, inputs } = context;
  const { shared } = weights;
  route(context, weights, input);
  if (shared === null || input.norm === undefined) {
    routedMlp(context, weights, input);
    if (shared !== null) denseMlp(context, shared, input);
    return;
  }
  const rows = { rowCount: inputs.rowCount, maxRows: buffers.maxRows };
  const { mlp, hidden: out } = buffers;
  gatedMlpGateUp(launch, { ...input, gate: shared.gate, up: shared.up, out: mlp, ...rows });
  routedMlp(context, weights, input);
  const scale = config.scaling.residual;
  linear(launch, { x: mlp, weight: shared.down, out, mode: "accumulate", scale, ...rows });
}

/** Records one decoder layer: both branches, each normed, scaled and added to the residual stream. */
export function decoderLayer(context: LayerContext, weights: LayerWeights, cache: LatentCache): void {
  attention(context, weights, cache);
  const { mlp, mlpNorm } = weights;
  if (mlp.kind === "dense") {
    denseMlp(context, mlp, branchInput(context, mlpNorm, [mlp.gate, mlp.up, mlp.down]));
  } else {
    const isFused = fusesExpertNorm(context.launch.target, context.buffers.maxRows);
    const streamed = isFused ? streamedInput(context, mlpNorm) : null;
    sparseMlp(context, mlp, streamed ?? normedInput(context, mlpNorm));
  }
}
