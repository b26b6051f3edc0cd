import { decodeToF32, encodeFromF32 } from "../../../base/convert.ts";
import { decodeFp8Entry, encodeFp8Entry } from "../../../base/fp8-entry.ts";
import type { Random } from "../../../base/random.ts";
import type { LatentDtype, LatentWidths } from "../latent-cache.ts";
import { latentEntryBytes } from "../latent-cache.ts";
import type { Noise } from "./stored.ts";

/** What a case's cache is made from. */
export interface PagedCacheOptions extends LatentWidths {
  /** Cached tokens of each sequence. */
  readonly lengths: readonly number[];
  readonly pageSize: number;
  readonly dtype: LatentDtype;
  readonly noise: Noise;
}

/** A paged cache whose unused rows are NaN and whose unused block-table entries are absurd. */
export interface PagedCache extends PagedCacheOptions {
  /** [pages, pageSize] entries. */
  readonly bytes: Uint8Array;
  /** [lengths.length, maxPages]. */
  readonly blockTable: Int32Array;
  readonly maxPages: number;
  /** The longest sequence, at least 1. */
  readonly maxLen: number;
  /** The values [d_c + d_r] that the entry at a slot, page · pageSize + offset, stands for. */
  entry(slot: number): Float32Array;
}

/** Full pages made at most: longer contexts visit them in another order each, which keeps large shapes affordable. */
const MOST_FULL_PAGES = 64;

/** One cache entry in its stored form. */
export function encodeLatentEntry(
  values: Float32Array,
  dtype: LatentDtype,
  { latentWidth }: LatentWidths,
): Uint8Array {
  if (dtype !== "fp8") return encodeFromF32(values, dtype);
  return encodeFp8Entry(values.subarray(0, latentWidth), values.subarray(latentWidth));
}

/** The values that one stored cache entry stands for. */
export function decodeLatentEntry(bytes: Uint8Array, dtype: LatentDtype, widths: LatentWidths): Float32Array {
  return dtype === "fp8" ? decodeFp8Entry(bytes, widths) : decodeToF32(bytes, dtype);
}

function shuffled(random: Random, length: number): number[] {
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Which page holds what: full pages, shared when there are many; each sequence's last, partly filled one; a NaN page. */
function planPages(random: Random, { lengths, pageSize }: PagedCacheOptions) {
  const fullPages = lengths.map((length) => Math.floor(length / pageSize));
  const wanted = fullPages.reduce((sum, count) => sum + count, 0);
  const shared = Math.min(wanted, MOST_FULL_PAGES);
  const order = shuffled(random, shared + lengths.length + 2);
  const nanPage = order.pop()!;
  let next = 0;
  const sequences = lengths.map((length, b) => {
    const visits = wanted > shared ? shuffled(random, shared) : null;
    const pages = Array.from({ length: fullPages[b]! }, (_, i) => order[visits?.[i % shared] ?? next++]!);
    return length % pageSize === 0 ? pages : [...pages, order[shared + b]!];
  });
  return { full: order.slice(0, shared), sequences, pages: order.length + 1, nanPage };
}

/** Makes the cache of a case; equal `random` states give equal caches. */
export function createPagedCache(random: Random, options: PagedCacheOptions): PagedCache {
  const { lengths, pageSize, dtype, noise } = options;
  const entryBytes = latentEntryBytes(dtype, options);
  const maxLen = Math.max(1, ...lengths);
  const maxPages = Math.ceil(maxLen / pageSize) + 2;
  const { full, sequences, pages, nanPage } = planPages(random, options);
  const bytes = new Uint8Array(pages * pageSize * entryBytes).fill(0xff);
  const fill = (page: number, rows: number) => {
    for (let slot = page * pageSize; slot < page * pageSize + rows; slot++) {
      const values = noise.window(random, options.latentWidth + options.ropeWidth);
      bytes.set(encodeLatentEntry(values, dtype, options), slot * entryBytes);
    }
  };
  for (const page of full) fill(page, pageSize);
  const absurd = [2147480000, nanPage, -1, -2147483648];
  const blockTable = new Int32Array(lengths.length * maxPages).map((_, i) => absurd[i % 4]!);
  sequences.forEach((table, b) => {
    blockTable.set(table, b * maxPages);
    const rest = lengths[b]! % pageSize;
    if (rest > 0) fill(table.at(-1)!, rest);
  });
  const decoded = new Map<number, Float32Array>();
  const entry = (slot: number) => {
    const known = decoded.get(slot);
    if (known !== undefined) return known;
    const values = decodeLatentEntry(
      bytes.subarray(slot * entryBytes, (slot + 1) * entryBytes),
      dtype,
      options,
    );
    decoded.set(slot, values);
    return values;
  };
  return { ...options, bytes, blockTable, maxPages, maxLen, entry };
}
