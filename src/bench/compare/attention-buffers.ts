import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer } from "../../device/device.ts";
import { attentionDecodeWorkspaceBytes } from "../../kernels/attention-decode/attention-decode.ts";
import type { KeyValueCache } from "../../kernels/common/key-value-cache.ts";
import { checkLatentWidths, type LatentCache } from "../../kernels/common/latent-cache.ts";
import { mlaDecodeWorkspaceBytes } from "../../kernels/common/mla-partials.ts";
import type { WeightMatrix } from "../../kernels/common/weight.ts";
import { queryDtypeOn } from "../../kernels/mla-decode/mla-decode.cuda.ts";
import { standardAttentionWorkspaceBytes } from "../../kernels/standard-attention/standard-attention.ts";
import type { CompareArena } from "./arena.ts";
import { type CompareForm, type CompareShape, cacheBytesPerToken } from "./shapes.ts";

/** Tokens a page, as in the engine. */
const PAGE_SIZE = 64;
/** Sequences, and the tokens that each has cached, the new one included. */
export interface CompareCell {
  readonly batch: number;
  readonly context: number;
}

/** What every layer of a step reads: one new token a sequence. */
export interface TokenInputs {
  readonly rowCount: DeviceBuffer;
  readonly positions: DeviceBuffer;
  readonly slots: DeviceBuffer;
  readonly blockTable: DeviceBuffer;
  readonly maxPages: number;
  readonly cacheSeqlens: DeviceBuffer;
  readonly rotaryTable: DeviceBuffer;
}

/** Activations of the attention of one step, shared by all layers. */
export type AttentionBuffers = { readonly tokens: TokenInputs; readonly values: DeviceBuffer } & (
  | {
      readonly kind: "full";
      readonly qkv: DeviceBuffer;
      readonly q: DeviceBuffer;
      readonly lse: DeviceBuffer;
      readonly workspace: DeviceBuffer;
    }
  | {
      readonly kind: "latent";
      readonly query: DeviceBuffer;
      readonly latent: DeviceBuffer;
      /** Queries meet the cache in this type: what suits the device. */
      readonly dtype: WeightDType;
      readonly absorbed: DeviceBuffer;
      readonly workspace: DeviceBuffer;
      /** Where attention merges its splits itself; null where the epilogue does. */
      readonly merged: { readonly attended: DeviceBuffer; readonly lse: DeviceBuffer } | null;
    }
);

/** What one layer has of its own. */
export type AttentionLayer =
  | { readonly kind: "full"; readonly cache: KeyValueCache }
  | {
      readonly kind: "latent";
      readonly cache: LatentCache;
      readonly kvB: WeightMatrix;
      readonly norm: DeviceBuffer;
    };

const pagesOf = ({ context }: CompareCell) => Math.ceil(context / PAGE_SIZE);

/** Bytes of the caches of `layers` layers in whole pages. */
export function cacheBytesOf(
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
  layers: number,
): number {
  return layers * cell.batch * pagesOf(cell) * PAGE_SIZE * cacheBytesPerToken(shape, form);
}

function rotaryTable(width: number, positions: number): Float32Array {
  const half = width / 2;
  return Float32Array.from({ length: positions * width }, (_, i) => {
    const [position, channel] = [Math.floor(i / width), i % width];
    const angle = position * 10000 ** (-(channel % half) / half);
    return channel < half ? Math.cos(angle) : Math.sin(angle);
  });
}

function makeTokens(arena: CompareArena, width: number, cell: CompareCell): TokenInputs {
  const { batch, context } = cell;
  const maxPages = pagesOf(cell);
  const fill = (label: string, numberOf: (sequence: number) => number) =>
    arena.upload(
      label,
      Int32Array.from({ length: batch }, (_, b) => numberOf(b)),
    );
  return {
    rowCount: arena.upload("row count", new Int32Array([batch])),
    positions: fill("positions", () => 0),
    slots: fill("slots", (b) => b * maxPages * PAGE_SIZE + context - 1),
    blockTable: arena.upload(
      "block table",
      Int32Array.from({ length: batch * maxPages }, (_, i) => i),
    ),
    maxPages,
    cacheSeqlens: fill("lengths", () => context),
    // The time of a rotation does not depend on the position.
    rotaryTable: arena.upload("rotary table", rotaryTable(width, 1)),
  };
}

/** What the kernels over full heads are told of a cell. */
export function fullSizes(shape: CompareShape, { batch, context }: CompareCell) {
  const { heads, headWidth } = shape;
  return { batch, sQ: 1, heads, kvHeads: heads, headWidth, maxLen: context };
}

/** What the kernels over latents are told of a cell. */
export function latentSizes(
  shape: CompareShape,
  form: CompareForm & { kind: "latent" },
  { batch, context }: CompareCell,
) {
  const { heads, ropeWidth, headWidth } = shape;
  const widths = { nopeWidth: headWidth, valueWidth: headWidth };
  return { batch, sQ: 1, heads, latentWidth: form.latentWidth, ropeWidth, maxLen: context, ...widths };
}

/** Allocates the activations of `form`, its inputs filled with random numbers. */
export function makeAttentionBuffers(
  arena: CompareArena,
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
): AttentionBuffers {
  const { heads, headWidth, ropeWidth } = shape;
  const { batch } = cell;
  const values = arena.reserve("values", batch * heads * headWidth * 4);
  if (form.kind === "full") {
    const sizes = fullSizes(shape, cell);
    const workspaceBytes =
      form.id === "standard" ? standardAttentionWorkspaceBytes(sizes) : attentionDecodeWorkspaceBytes(sizes);
    return {
      ...{ kind: "full", values, tokens: makeTokens(arena, headWidth, cell) },
      qkv: arena.floats("queries, keys, values", batch * 3 * heads * headWidth, 1),
      q: arena.reserve("rotated queries", batch * heads * headWidth * 4),
      lse: arena.reserve("log-sum-exp", batch * heads * 4),
      workspace: arena.reserve("attention workspace", workspaceBytes),
    };
  }
  const width = form.latentWidth + ropeWidth;
  const dtype = queryDtypeOn(arena.target.kind, form.dtype);
  const rows = batch * heads;
  return {
    ...{ kind: "latent", values, tokens: makeTokens(arena, ropeWidth, cell), dtype },
    query: arena.floats("query", batch * heads * (headWidth + ropeWidth), 1),
    latent: arena.floats("latent", batch * width, 1),
    absorbed: arena.reserve("absorbed query", rows * width * bytesPerElement(dtype)),
    workspace: arena.reserve("attention workspace", mlaDecodeWorkspaceBytes(latentSizes(shape, form, cell))),
    merged:
      dtype === "f32"
        ? null
        : {
            attended: arena.reserve("attended", rows * form.latentWidth * bytesPerElement(dtype)),
            lse: arena.reserve("log-sum-exp", rows * 4),
          },
  };
}

/** Allocates one layer's cache, full of random entries, and what its attention has in weights. */
export function makeAttentionLayer(
  arena: CompareArena,
  shape: CompareShape,
  form: CompareForm,
  cell: CompareCell,
): AttentionLayer {
  const bytes = cacheBytesOf(shape, form, cell, 1);
  if (form.kind === "full") {
    const keys = arena.bf16Cache("key cache", bytes / 2);
    const values = arena.bf16Cache("value cache", bytes / 2);
    return { kind: "full", cache: { keys, values, dtype: "bf16", pageSize: PAGE_SIZE } };
  }
  const { latentWidth, dtype } = form;
  const entryBytes = cacheBytesPerToken(shape, form);
  const widths = [latentWidth, shape.ropeWidth] as const;
  const buffer = arena.latentCache(bytes / entryBytes, entryBytes, dtype, widths);
  return {
    ...{ kind: "latent", cache: { buffer, dtype, pageSize: PAGE_SIZE } },
    kvB: arena.matrix("kv_b", 2 * shape.heads * shape.headWidth, latentWidth),
    norm: arena.upload("latent norm", new Float32Array(latentWidth).fill(1)),
  };
}

/** Caches that rows of one layer's attention go round: larger together than the caches of the processors this runs on. */
const COLD_BYTES = 256e6;
const MOST_LAYERS = 32;

/** Layers whose caches such a row runs over, so that each is read from memory. */
export function coldLayers(shape: CompareShape, form: CompareForm, cell: CompareCell): number {
  const bytes = cacheBytesOf(shape, form, cell, 1);
  return Math.max(1, Math.min(MOST_LAYERS, Math.ceil(COLD_BYTES / bytes)));
}

/** Throws TypeError or RangeError for a shape that the kernels of `form` do not take. */
export function checkCompareSizes(shape: CompareShape, form: CompareForm): void {
  const cell = { batch: 1, context: 1 };
  if (form.kind === "full") attentionDecodeWorkspaceBytes(fullSizes(shape, cell));
  else {
    checkLatentWidths({ latentWidth: form.latentWidth, ropeWidth: shape.ropeWidth });
    mlaDecodeWorkspaceBytes(latentSizes(shape, form, cell));
  }
}
