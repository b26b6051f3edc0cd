import { encodeFromF32 } from "../../base/convert.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import { createRandom, type Random } from "../../base/random.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import type { PagedCache } from "../common/cases/paged-cache.ts";
import type { Noise } from "../common/cases/stored.ts";
import { mlaDecodeWorkspaceBytes } from "../common/mla-partials.ts";
import type { MlaDecodePartialArguments, MlaDecodeTokens } from "./mla-decode.ts";
import { mlaRowReference, visibleSlots } from "./reference.ts";

/** A decode to be checked: sizes, and makers of its inputs. */
export interface DecodeShape {
  readonly sQ: number;
  readonly heads: number;
  readonly mask: "causal" | "full" | "indices";
  readonly seed: number;
  /** Lengths, widths, stored form and pages come with the cache. */
  readonly createCache: () => PagedCache;
  readonly createQueryNoise: () => Noise;
  readonly softmaxScale: number;
  /** Sequences recorded past those in use, which a batch count then holds. */
  readonly spareSequences: number;
}

/** What a decode reads, and which tokens each of its queries sees. */
export interface DecodeInputs {
  readonly cache: PagedCache;
  /** [batch, sQ, heads, d_c + d_r]. */
  readonly q: Float32Array;
  /** [batch, sQ, maxLen]; read with the mask `indices` alone. */
  readonly indices: Int32Array;
  /** The slots that token `j` of `sequence` sees. */
  readonly slots: (sequence: number, j: number) => readonly number[];
  /** Whether it sees none. */
  readonly seesNothing: (sequence: number, j: number) => boolean;
}

/** Indices that name no token: the documented one, and one that lies outside every cache. */
const NONE = [-1, 2147480000];

function slotsOfSequence(cache: PagedCache, sequence: number, hidden: number): number[] {
  const { maxPages, pageSize, lengths } = cache;
  const blockTable = cache.blockTable.subarray(sequence * maxPages, (sequence + 1) * maxPages);
  return visibleSlots({ blockTable, length: lengths[sequence]!, pageSize, hidden });
}

function makeIndices(random: Random, cache: PagedCache, sQ: number): Int32Array {
  const own = cache.lengths.map((_, b) => slotsOfSequence(cache, b, 0));
  return new Int32Array(cache.lengths.length * sQ * cache.maxLen).map((_, i) => {
    const slots = own[Math.floor(i / (sQ * cache.maxLen))]!;
    if (slots.length === 0 || random.uniform() < 0.2) return NONE[i % NONE.length]!;
    return slots[random.integer(slots.length)]!;
  });
}

/** The inputs of `shape`, the same ones at every call. */
export function makeDecodeInputs(shape: DecodeShape): DecodeInputs {
  const { sQ, heads, mask } = shape;
  const random = createRandom(shape.seed);
  const cache = shape.createCache();
  const noise = shape.createQueryNoise();
  const width = cache.latentWidth + cache.ropeWidth;
  const q = new Float32Array(cache.lengths.length * sQ * heads * width);
  for (let at = 0; at < q.length; at += width) q.set(noise.window(random, width), at);
  const indices = mask === "indices" ? makeIndices(random, cache, sQ) : new Int32Array(0);
  const slots = (sequence: number, j: number) => {
    if (mask !== "indices") return slotsOfSequence(cache, sequence, mask === "causal" ? sQ - 1 - j : 0);
    const start = (sequence * sQ + j) * cache.maxLen;
    return [...indices.subarray(start, start + cache.maxLen)].filter((slot) => !NONE.includes(slot));
  };
  const seesNothing = (sequence: number, j: number) => {
    if (mask === "indices") return slots(sequence, j).length === 0;
    return cache.lengths[sequence]! <= (mask === "causal" ? sQ - 1 - j : 0);
  };
  return { cache, q, indices, slots, seesNothing };
}

/** Float64 out [rows.length, d_c] and lse [rows.length] of `rows`, numbered through [batch, sQ, heads]. */
export function decodeTruth(
  { sQ, heads, softmaxScale }: DecodeShape,
  { cache, q, slots }: DecodeInputs,
  rows: readonly number[],
): { out: Float64Array; lse: Float64Array } {
  const { latentWidth } = cache;
  const width = latentWidth + cache.ropeWidth;
  const out = new Float64Array(rows.length * latentWidth);
  const lse = new Float64Array(rows.length);
  let known = -1;
  let tokens: Float32Array[] = [];
  rows.forEach((row, k) => {
    const token = Math.floor(row / heads);
    if (token !== known) tokens = slots(Math.floor(token / sQ), token % sQ).map(cache.entry);
    known = token;
    const query = q.subarray(row * width, (row + 1) * width);
    const result = mlaRowReference({ query, tokens, latentWidth, softmaxScale });
    out.set(result.out, k * latentWidth);
    lse[k] = result.lse;
  });
  return { out, lse };
}

/** The inputs in device memory, q in `qDtype`, poison past the sequences in use, as the split stage takes them. */
export function uploadDecodeInputs(
  memory: CaseMemory,
  { sQ, heads, mask, softmaxScale, spareSequences }: DecodeShape,
  { cache, q, indices }: DecodeInputs,
  qDtype: WeightDType = "f32",
): MlaDecodePartialArguments {
  const { lengths, latentWidth, ropeWidth, maxLen, maxPages, dtype, pageSize } = cache;
  const batch = lengths.length + spareSequences;
  const sizes = { batch, sQ, heads, latentWidth, ropeWidth, maxLen };
  const tokens: MlaDecodeTokens =
    mask === "indices"
      ? { mask, indices: memory.upload("indices", indices, batch * sQ * maxLen * 4) }
      : {
          mask,
          blockTable: memory.upload("blockTable", cache.blockTable, batch * maxPages * 4),
          maxPages,
          cacheSeqlens: memory.upload("cacheSeqlens", Int32Array.from(lengths), batch * 4),
        };
  const args = {
    ...{ ...sizes, ...tokens, softmaxScale },
    q: memory.upload(
      "q",
      encodeFromF32(q, qDtype),
      batch * sQ * heads * (latentWidth + ropeWidth) * bytesPerElement(qDtype),
    ),
    cache: { buffer: memory.upload("cache", cache.bytes), dtype, pageSize },
    workspace: memory.reserve("workspace", mlaDecodeWorkspaceBytes(sizes)),
  };
  if (spareSequences === 0) return args;
  return { ...args, batchCount: memory.uploadCount("batchCount", lengths.length) };
}
