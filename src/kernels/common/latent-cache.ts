import { checkInteger, checkOneOf } from "../../base/checks.ts";
import { fp8EntryBytes } from "../../base/fp8-entry.ts";
import type { DeviceBuffer } from "../../device/device.ts";

/** Stored forms of a latent cache entry; the position is the code that kernels take. */
export const latentDtypes = ["f32", "f16", "bf16", "fp8"] as const;

/** How one layer's cache stores its entries. */
export type LatentDtype = (typeof latentDtypes)[number];

/** One layer's paged latent cache: [pages, pageSize] entries of d_c latent, then d_r rotary values. */
export interface LatentCache {
  readonly buffer: DeviceBuffer;
  readonly dtype: LatentDtype;
  /** Tokens a page. */
  readonly pageSize: number;
  /** Pages in `buffer`; default: as many as it holds. */
  readonly pages?: number;
}

/** Widths of a latent cache entry. */
export interface LatentWidths {
  /** d_c, kv_lora_rank: 128, 256 or 512. */
  readonly latentWidth: number;
  /** d_r, qk_rope_head_dim: 32 or 64. */
  readonly ropeWidth: number;
}

/** Bytes of one cache entry. Throws RangeError for an fp8 entry whose d_c is no multiple of 128. */
export function latentEntryBytes(dtype: LatentDtype, { latentWidth, ropeWidth }: LatentWidths): number {
  if (dtype === "fp8") return fp8EntryBytes({ latentWidth, ropeWidth });
  return (latentWidth + ropeWidth) * (dtype === "f32" ? 4 : 2);
}

/** The kernels' code of a stored form. Throws RangeError for one they do not know. */
export function latentDtypeCode(dtype: LatentDtype): number {
  return latentDtypes.indexOf(checkOneOf("cache.dtype", dtype, latentDtypes));
}

/** Throws RangeError for widths that the latent kernels do not take. */
export function checkLatentWidths({ latentWidth, ropeWidth }: LatentWidths): void {
  checkOneOf("latentWidth", latentWidth, [128, 256, 512]);
  checkOneOf("ropeWidth", ropeWidth, [32, 64]);
}

/** The number of pages of `cache`, checked against its buffer. Throws RangeError when the buffer is too small. */
export function latentCachePages(cache: LatentCache, widths: LatentWidths): number {
  checkInteger("cache.pageSize", cache.pageSize, { min: 1 });
  const pageBytes = cache.pageSize * latentEntryBytes(cache.dtype, widths);
  const held = Math.floor(cache.buffer.bytes / pageBytes);
  return checkInteger("cache.pages", cache.pages ?? held, { min: 0, max: held });
}
