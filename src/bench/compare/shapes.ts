import { type LatentDtype, latentEntryBytes } from "../../kernels/common/latent-cache.ts";

/** Sizes of the decoder that all rows share. */
export interface CompareShape {
  readonly name: string;
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  /** Of queries, keys and values; d_n and d_v of latent attention. */
  readonly headWidth: number;
  /** d_r of latent attention. */
  readonly ropeWidth: number;
  /** MLP width of the rows over full heads; latent rows get what makes their model as large. */
  readonly intermediate: number;
  readonly vocab: number;
}

/** One row of the comparison. */
export type CompareForm =
  | { readonly id: "standard" | "flash"; readonly title: string; readonly kind: "full" }
  | {
      readonly id: "latent-512" | "latent-256" | "latent-512-fp8";
      readonly title: string;
      readonly kind: "latent";
      /** d_c */
      readonly latentWidth: 512 | 256;
      readonly dtype: LatentDtype;
    };

/** Shapes by name: `small` fits the CPU device's 4 GiB, `7b` is the shape of the published claims. */
export const compareShapes: Readonly<Record<string, CompareShape>> = {
  tiny: {
    ...{ name: "tiny", layers: 2, hidden: 256, heads: 4, headWidth: 64, ropeWidth: 32 },
    ...{ intermediate: 1024, vocab: 512 },
  },
  small: {
    ...{ name: "small", layers: 4, hidden: 2048, heads: 16, headWidth: 128, ropeWidth: 64 },
    ...{ intermediate: 5632, vocab: 8192 },
  },
  "7b": {
    ...{ name: "7b", layers: 32, hidden: 4096, heads: 32, headWidth: 128, ropeWidth: 64 },
    ...{ intermediate: 11008, vocab: 32000 },
  },
};

/** The rows in the order of the tables. */
export const compareForms: readonly CompareForm[] = [
  { id: "standard", title: "standard", kind: "full" },
  { id: "flash", title: "flash, full heads", kind: "full" },
  { id: "latent-512", title: "latent d_c=512", kind: "latent", latentWidth: 512, dtype: "bf16" },
  { id: "latent-256", title: "latent d_c=256", kind: "latent", latentWidth: 256, dtype: "bf16" },
  { id: "latent-512-fp8", title: "latent d_c=512 fp8", kind: "latent", latentWidth: 512, dtype: "fp8" },
];

/** The id of one of the rows. */
export type CompareFormId = CompareForm["id"];

/** Parameters of one layer's attention projections. */
export function attentionParameters(shape: CompareShape, form: CompareForm): number {
  const { hidden, heads, headWidth, ropeWidth } = shape;
  const inner = heads * headWidth;
  if (form.kind === "full") return 4 * hidden * inner;
  const { latentWidth } = form;
  const query = hidden * heads * (headWidth + ropeWidth);
  return query + hidden * (latentWidth + ropeWidth) + latentWidth * 2 * inner + inner * hidden;
}

/**
 * MLP width at which the row's model has as many parameters as the one over full heads, to the next multiple of 8: equal model
 * size.
 */
export function intermediateOf(shape: CompareShape, form: CompareForm): number {
  const full = attentionParameters(shape, compareForms[0]!);
  const spare = full - attentionParameters(shape, form);
  return 8 * Math.max(1, Math.round((shape.intermediate + spare / (3 * shape.hidden)) / 8));
}

/** Parameters of the whole model: attention, MLPs, embedding and head. */
export function modelParameters(shape: CompareShape, form: CompareForm): number {
  const { layers, hidden, vocab } = shape;
  const mlp = 3 * hidden * intermediateOf(shape, form);
  return layers * (attentionParameters(shape, form) + mlp) + 2 * vocab * hidden;
}

/** Bytes that one token takes in the cache of one layer; keys and values are bf16. */
export function cacheBytesPerToken(shape: CompareShape, form: CompareForm): number {
  if (form.kind === "full") return 2 * shape.heads * shape.headWidth * 2;
  return latentEntryBytes(form.dtype, { latentWidth: form.latentWidth, ropeWidth: shape.ropeWidth });
}
