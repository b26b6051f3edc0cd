import type { Launch } from "../../device/device.ts";
import { attentionDecode, attentionDecodeCost } from "../../kernels/attention-decode/attention-decode.ts";
import { attentionPrologue } from "../../kernels/attention-prologue/attention-prologue.ts";
import { mlaDecode, mlaDecodeCost, mlaDecodePartial } from "../../kernels/mla-decode/mla-decode.ts";
import { mlaEpilogue } from "../../kernels/mla-epilogue/mla-epilogue.ts";
import { mlaPrologue } from "../../kernels/mla-prologue/mla-prologue.ts";
import {
  standardAttention,
  standardAttentionCost,
} from "../../kernels/standard-attention/standard-attention.ts";
import {
  type AttentionBuffers,
  type AttentionLayer,
  type CompareCell,
  fullSizes,
  latentSizes,
} from "./attention-buffers.ts";
import type { CompareForm, CompareShape } from "./shapes.ts";

const EPSILON = 1e-6;

/** The attention of one layer: what is measured, and its memory. */
export interface AttentionStep {
  readonly shape: CompareShape;
  readonly form: CompareForm;
  readonly cell: CompareCell;
  readonly buffers: AttentionBuffers;
  readonly layer: AttentionLayer;
}

type Full = AttentionStep & {
  readonly form: { readonly kind: "full" };
  readonly buffers: { readonly kind: "full" };
  readonly layer: { readonly kind: "full" };
};
type Latent = AttentionStep & {
  readonly form: { readonly kind: "latent" };
  readonly buffers: { readonly kind: "latent" };
  readonly layer: { readonly kind: "latent" };
};

const isFull = (step: AttentionStep): step is Full =>
  [step.form, step.buffers, step.layer].every(({ kind }) => kind === "full");
const isLatent = (step: AttentionStep): step is Latent =>
  [step.form, step.buffers, step.layer].every(({ kind }) => kind === "latent");

/** Calls the function of the step's kind. Throws TypeError for a step put together from both. */
function byKind<Result>(
  step: AttentionStep,
  full: (step: Full) => Result,
  latent: (step: Latent) => Result,
): Result {
  if (isFull(step)) return full(step);
  if (isLatent(step)) return latent(step);
  const { form, buffers, layer } = step;
  throw new TypeError(`buffers and layer must be ${form.kind}, got ${buffers.kind} and ${layer.kind}`);
}

function fullKernel(launch: Launch, { shape, form, cell, buffers, layer }: Full): void {
  const { tokens, q, values: out, lse, workspace } = buffers;
  const softmaxScale = shape.headWidth ** -0.5;
  const args = { ...fullSizes(shape, cell), ...tokens, q, cache: layer.cache, mask: "causal" } as const;
  const enqueue = form.id === "standard" ? standardAttention : attentionDecode;
  enqueue(launch, { ...args, softmaxScale, workspace, out, lse });
}

function latentKernel(launch: Launch, { shape, form, cell, buffers, layer }: Latent): void {
  const { tokens, absorbed: q, workspace, dtype: qDtype, merged } = buffers;
  const softmaxScale = (shape.headWidth + shape.ropeWidth) ** -0.5;
  const sizes = { ...latentSizes(shape, form, cell), ...tokens, mask: "causal" } as const;
  const attention = { ...sizes, q, cache: layer.cache, softmaxScale, workspace };
  if (merged === null) mlaDecodePartial(launch, attention);
  else {
    const { attended: out, lse } = merged;
    mlaDecode(launch, { ...attention, qDtype, out, outDtype: qDtype, lse });
  }
}

/** Records scores, softmax and values alone: what the kernels' ceilings are about. */
export function recordAttentionKernel(launch: Launch, step: AttentionStep): void {
  byKind(
    step,
    (full) => fullKernel(launch, full),
    (latent) => latentKernel(launch, latent),
  );
}

function recordFull(launch: Launch, step: Full): void {
  const { shape, cell, buffers, layer } = step;
  const { tokens, q: qOut, qkv } = buffers;
  const sizes = { ...fullSizes(shape, cell), ...tokens, maxRows: cell.batch };
  attentionPrologue(launch, { ...sizes, qkv, cache: layer.cache, qOut });
  fullKernel(launch, step);
}

function recordLatent(launch: Launch, step: Latent): void {
  const { shape, form, cell, buffers, layer } = step;
  const { tokens, query, latent, absorbed, workspace, values, dtype, merged } = buffers;
  const { cache, kvB, norm } = layer;
  const sizes = latentSizes(shape, form, cell);
  mlaPrologue(launch, {
    ...{ ...sizes, ...tokens, phase: "decode", q: query, latent, normWeight: norm, epsilon: EPSILON },
    ...{ kvB, rotary: "halves", queryScale: null, cache, qOut: absorbed, maxRows: cell.batch },
    qOutDtype: dtype,
  });
  latentKernel(launch, step);
  const input =
    merged === null ? { partials: workspace } : { attended: merged.attended, attendedDtype: dtype };
  mlaEpilogue(launch, { ...sizes, ...input, kvB, out: values });
}

/**
 * Records one layer's attention from its projections to the heads' values, new entries appended: rotary, scores, softmax
 * and values; for latent rows the absorbed queries and the value projection too, which are the price of the small cache.
 */
export function recordAttention(launch: Launch, step: AttentionStep): void {
  byKind(
    step,
    (full) => recordFull(launch, full),
    (latent) => recordLatent(launch, latent),
  );
}

/** FLOPs and bytes of what {@link recordAttentionKernel} records, by the kernels' own formulas. */
export function attentionKernelCost(
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
): { flops: number; bytes: number } {
  const tokens = cell.batch * cell.context;
  if (form.kind === "latent") return mlaDecodeCost(latentSizes(shape, form, cell), form.dtype, tokens);
  const cost = form.id === "standard" ? standardAttentionCost : attentionDecodeCost;
  return cost(fullSizes(shape, cell), "bf16", tokens);
}
