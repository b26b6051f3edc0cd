import { checkInteger, checkOneOf } from "../../base/checks.ts";
import type { DeviceBuffer } from "../../device/device.ts";

/** Stored forms of keys and values; the position is the code that kernels take, as for latent entries. */
export const keyValueDtypes = ["f32", "f16", "bf16"] as const;

/** How one layer's cache stores keys and values. */
export type KeyValueDtype = (typeof keyValueDtypes)[number];

/** One layer's paged cache of keys and values, one buffer each: [pages, kvHeads, pageSize, headWidth]. */
export interface KeyValueCache {
  readonly keys: DeviceBuffer;
  readonly values: DeviceBuffer;
  readonly dtype: KeyValueDtype;
  /** Tokens a page. */
  readonly pageSize: number;
  /** Pages in each buffer; default: as many as the smaller one holds. */
  readonly pages?: number;
}

/** Widths of a token's keys and values. */
export interface KeyValueWidths {
  /** Heads that are stored: as many as query heads (multi-head), a divisor of them (grouped-query), or 1 (multi-query). */
  readonly kvHeads: number;
  /** Of keys and of values: a multiple of 16 up to 256. */
  readonly headWidth: number;
}

const elementBytes: Readonly<Record<KeyValueDtype, number>> = { f32: 4, f16: 2, bf16: 2 };

/** Bytes that one token takes in one layer: its keys and its values. */
export function keyValueTokenBytes(dtype: KeyValueDtype, { kvHeads, headWidth }: KeyValueWidths): number {
  return 2 * kvHeads * headWidth * elementBytes[dtype];
}

/** The kernels' code of a stored form. Throws RangeError for one they do not know. */
export function keyValueDtypeCode(dtype: KeyValueDtype): number {
  return keyValueDtypes.indexOf(checkOneOf("cache.dtype", dtype, keyValueDtypes));
}

/** Throws TypeError or RangeError for widths that the kernels do not take. */
export function checkKeyValueWidths({ kvHeads, headWidth }: KeyValueWidths): void {
  checkInteger("kvHeads", kvHeads, { min: 1 });
  checkInteger("headWidth", headWidth, { min: 16, max: 256 });
  if (headWidth % 16 !== 0) throw new RangeError(`headWidth must be a multiple of 16, got ${headWidth}`);
}

/** The number of pages of `cache`, checked against its buffers. Throws RangeError when one is too small. */
export function keyValueCachePages(cache: KeyValueCache, widths: KeyValueWidths): number {
  checkInteger("cache.pageSize", cache.pageSize, { min: 1 });
  const pageBytes = (cache.pageSize * keyValueTokenBytes(cache.dtype, widths)) / 2;
  const held = Math.floor(Math.min(cache.keys.bytes, cache.values.bytes) / pageBytes);
  return checkInteger("cache.pages", cache.pages ?? held, { min: 0, max: held });
}
