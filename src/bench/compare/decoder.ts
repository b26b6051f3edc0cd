import type { DeviceBuffer, Launch } from "../../device/device.ts";
import { mlaDecodeWorkspaceBytes } from "../../kernels/common/mla-partials.ts";
import type { WeightMatrix } from "../../kernels/common/weight.ts";
import { embedding } from "../../kernels/embedding/embedding.ts";
import { roundedMlpBytes } from "../../kernels/gated-mlp/gated-mlp.cuda.ts";
import { gatedMlp } from "../../kernels/gated-mlp/gated-mlp.ts";
import { fusesNorm, linear, linearPair } from "../../kernels/linear/linear.ts";
import { rmsNorm } from "../../kernels/rms-norm/rms-norm.ts";
import type { CompareArena } from "./arena.ts";
import { recordAttention } from "./attention.ts";
import {
  type AttentionBuffers,
  type AttentionLayer,
  type CompareCell,
  cacheBytesOf,
  coldLayers,
  makeAttentionBuffers,
  makeAttentionLayer,
} from "./attention-buffers.ts";
import { type CompareForm, type CompareShape, intermediateOf, modelParameters } from "./shapes.ts";

const EPSILON = 1e-6;

interface DecoderLayer {
  readonly attention: AttentionLayer;
  /** Query, key and value projections; query and compression for latent attention. */
  readonly inputs: readonly WeightMatrix[];
  readonly output: WeightMatrix;
  readonly gate: WeightMatrix;
  readonly up: WeightMatrix;
  readonly down: WeightMatrix;
}

interface Decoder {
  readonly table: WeightMatrix;
  readonly head: WeightMatrix;
  readonly layers: readonly DecoderLayer[];
  /** f32 [hidden] of ones: the weight of every norm. */
  readonly norm: DeviceBuffer;
  readonly attention: AttentionBuffers;
  readonly ids: DeviceBuffer;
  readonly hidden: DeviceBuffer;
  readonly normed: DeviceBuffer;
  readonly mlp: DeviceBuffer;
  /** Where activations of many rows are rounded to bf16 on CUDA, as the engine does it; undefined where none are. */
  readonly rounded: DeviceBuffer | undefined;
  readonly logits: DeviceBuffer;
}

function makeLayer(
  arena: CompareArena,
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
): DecoderLayer {
  const { hidden, heads, headWidth, ropeWidth } = shape;
  const inner = heads * headWidth;
  const intermediate = intermediateOf(shape, form);
  return {
    attention: makeAttentionLayer(arena, shape, form, cell),
    inputs:
      form.kind === "full"
        ? [arena.matrix("qkv", 3 * inner, hidden)]
        : [
            arena.matrix("query", heads * (headWidth + ropeWidth), hidden),
            arena.matrix("kv_a", form.latentWidth + ropeWidth, hidden),
          ],
    output: arena.matrix("output", hidden, inner),
    gate: arena.matrix("gate", intermediate, hidden),
    up: arena.matrix("up", intermediate, hidden),
    down: arena.matrix("down", hidden, intermediate),
  };
}

function roundedBytes(shape: CompareShape, form: CompareForm, batch: number): number {
  const mlp = roundedMlpBytes(batch, shape.hidden, intermediateOf(shape, form));
  return Math.max(mlp, 2 * batch * shape.heads * shape.headWidth);
}

/** A decoder with random weights on the device, its caches full, ready to be recorded. */
export function makeDecoder(
  arena: CompareArena,
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
): Decoder {
  const { hidden, vocab, layers } = shape;
  const { batch } = cell;
  const rows = (label: string, width: number) => arena.reserve(label, batch * width * 4);
  const isRounded = arena.target.kind === "cuda" && !fusesNorm(arena.target, batch);
  return {
    table: arena.matrix("embedding", vocab, hidden),
    head: arena.matrix("head", vocab, hidden),
    layers: Array.from({ length: layers }, () => makeLayer(arena, shape, form, cell)),
    norm: arena.upload("norm", new Float32Array(hidden).fill(1)),
    attention: makeAttentionBuffers(arena, shape, form, cell),
    ids: arena.upload(
      "ids",
      Int32Array.from({ length: batch }, (_, b) => b % vocab),
    ),
    hidden: rows("hidden state", hidden),
    normed: rows("normed hidden state", hidden),
    mlp: rows("MLP", intermediateOf(shape, form)),
    rounded: isRounded ? arena.reserve("rounded", roundedBytes(shape, form, batch)) : undefined,
    logits: rows("logits", vocab),
  };
}

/** What a branch reads: the residual stream, its norm on the way where the products take it, else normed before. */
function branchInput(launch: Launch, { hidden, normed, norm, rounded }: Decoder, width: number, rows: Rows) {
  if (fusesNorm(launch.target, rows.maxRows)) return { x: hidden, norm: { weight: norm, epsilon: EPSILON } };
  rmsNorm(launch, { x: hidden, weight: norm, out: normed, width, epsilon: EPSILON, ...rows });
  return { x: normed, rounded };
}

interface Rows {
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
}

type BranchInput = ReturnType<typeof branchInput>;

function project(
  launch: Launch,
  decoder: Decoder,
  layer: DecoderLayer,
  input: BranchInput,
  rows: Rows,
): void {
  const { attention } = decoder;
  const [first, second] = layer.inputs as [WeightMatrix, WeightMatrix];
  if (attention.kind === "full") {
    linear(launch, { ...input, weight: first, out: attention.qkv, mode: "store", ...rows });
    return;
  }
  linearPair(launch, {
    ...{ ...input, ...rows },
    first: { weight: first, out: attention.query },
    second: { weight: second, out: attention.latent },
  });
}

/** Records one step of every sequence, from token ids to logits, as the engine runs one. */
export function recordDecoder(
  launch: Launch,
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
  decoder: Decoder,
): void {
  const { hidden, rounded, mlp, attention, table, head, ids, logits } = decoder;
  const rows = { rowCount: attention.tokens.rowCount, maxRows: cell.batch };
  const input = () => branchInput(launch, decoder, shape.hidden, rows);
  embedding(launch, { ids, table, scale: 1, out: hidden, ...rows });
  for (const layer of decoder.layers) {
    project(launch, decoder, layer, input(), rows);
    recordAttention(launch, { shape, form, cell, buffers: attention, layer: layer.attention });
    const output = { x: attention.values, rounded, weight: layer.output, out: hidden };
    linear(launch, { ...output, mode: "accumulate", ...rows });
    const { gate, up, down } = layer;
    const mlps = { gate, up, down, out: hidden, mode: "accumulate", workspace: mlp } as const;
    gatedMlp(launch, { ...input(), ...mlps, ...rows });
  }
  linear(launch, { ...input(), weight: head, out: logits, mode: "store", ...rows });
}

/** Bytes that a measurement needs at least: caches, weights and the scores of standard attention. */
export function leastBytes(
  scope: "attention" | "model",
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
): number {
  const { heads, ropeWidth } = shape;
  const { batch, context } = cell;
  const sizes = { batch, sQ: 1, heads, ropeWidth, maxLen: context };
  const workspace =
    form.kind === "latent"
      ? mlaDecodeWorkspaceBytes({ ...sizes, latentWidth: form.latentWidth })
      : form.id === "standard"
        ? 4 * batch * heads * context
        : 0;
  const layers = scope === "model" ? shape.layers : coldLayers(shape, form, cell);
  const weights = scope === "model" ? 2 * modelParameters(shape, form) : 0;
  return cacheBytesOf(shape, form, cell, layers) + weights + workspace;
}
