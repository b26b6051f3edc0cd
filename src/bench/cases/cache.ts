import { decodeToF32 } from "../../base/convert.ts";
import { decodeFp8Entry, encodeFp8Entry } from "../../base/fp8-entry.ts";
import { type LatentDtype, latentEntryBytes } from "../../kernels/common/latent-cache.ts";
import { normals, storedNormals } from "../case.ts";

/** Tokens a page, as in the engine. */
export const PAGE_SIZE = 64;

/** Sizes of a filled cache. */
export interface CacheShape {
  readonly latentWidth: number;
  readonly ropeWidth: number;
  readonly dtype: LatentDtype;
  /** Cached tokens. */
  readonly length: number;
}

function storedEntries({ latentWidth, ropeWidth, dtype, length }: CacheShape): Uint8Array {
  const width = latentWidth + ropeWidth;
  if (dtype !== "fp8") return storedNormals(length * width, 5, 1, dtype);
  const values = normals(length * width, 5);
  const stored = new Uint8Array(length * latentEntryBytes(dtype, { latentWidth, ropeWidth }));
  const entryBytes = stored.length / length;
  for (let t = 0; t < length; t++) {
    const entry = values.subarray(t * width, (t + 1) * width);
    const target = stored.subarray(t * entryBytes, (t + 1) * entryBytes);
    encodeFp8Entry(entry.subarray(0, latentWidth), entry.subarray(latentWidth), target);
  }
  return stored;
}

/**
 * A sequence of `length` random entries in pages in reverse order: the pool's bytes, its block table, and the entry of a
 * token as it reads back.
 */
export function fillCache(shape: CacheShape): {
  readonly pool: Uint8Array;
  readonly blockTable: Int32Array;
  entry(token: number): Float32Array;
} {
  const { length, dtype } = shape;
  const stored = storedEntries(shape);
  const entryBytes = stored.length / length;
  const pages = Math.ceil(length / PAGE_SIZE);
  const pool = new Uint8Array(pages * PAGE_SIZE * entryBytes);
  const blockTable = Int32Array.from({ length: pages }, (_, page) => pages - 1 - page);
  const pageBytes = PAGE_SIZE * entryBytes;
  for (let page = 0; page < pages; page++) {
    pool.set(stored.subarray(page * pageBytes, (page + 1) * pageBytes), blockTable[page]! * pageBytes);
  }
  return {
    pool,
    blockTable,
    entry(token) {
      const bytes = stored.subarray(token * entryBytes, (token + 1) * entryBytes);
      return dtype === "fp8" ? decodeFp8Entry(bytes) : decodeToF32(bytes, dtype);
    },
  };
}
