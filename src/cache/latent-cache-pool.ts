import { checkInteger, checkOneOf } from "../base/checks.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import { type LatentDtype, latentDtypes, latentEntryBytes } from "../kernels/common/latent-cache.ts";

/** How a cache entry is stored; `fp8` is the entry of src/base/fp8-entry.ts. */
export type CacheDType = LatentDtype;

/** What decides the size of a latent cache. */
export interface LatentCacheShape {
  readonly dtype: CacheDType;
  /** d_c */
  readonly kvLoraRank: number;
  /** d_r */
  readonly qkRopeHeadDim: number;
  readonly layers: number;
  /** Tokens of a page. */
  readonly pageSize: number;
}

const ALIGNMENT = 256;

/**
 * Bytes of one token in one layer: (d_c + d_r) elements, or the fp8 entry. Throws RangeError for an unknown dtype, or for
 * fp8 with a `kvLoraRank` that is no multiple of 128.
 */
export function cacheEntryBytes(shape: Omit<LatentCacheShape, "layers" | "pageSize">): number {
  const dtype = checkOneOf("dtype", shape.dtype, latentDtypes);
  const latentWidth = checkInteger("kvLoraRank", shape.kvLoraRank, { min: 1 });
  const ropeWidth = checkInteger("qkRopeHeadDim", shape.qkRopeHeadDim, { min: 1 });
  return latentEntryBytes(dtype, { latentWidth, ropeWidth });
}

/** Bytes of one token in all layers. */
export function cacheTokenBytes(shape: LatentCacheShape): number {
  return cacheEntryBytes(shape) * checkInteger("layers", shape.layers, { min: 1 });
}

function layerBytes(shape: LatentCacheShape, pageCount: number): number {
  checkInteger("pageSize", shape.pageSize, { min: 1 });
  const bytes = cacheEntryBytes(shape) * shape.pageSize * pageCount;
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Pages that fit into `bytes` bytes, each of all layers; each layer starts at a multiple of 256 bytes. */
export function pagesThatFit(shape: LatentCacheShape, bytes: number): number {
  let pages = Math.max(0, Math.floor(bytes / (cacheTokenBytes(shape) * shape.pageSize)));
  while (pages > 0 && layerBytes(shape, pages) * shape.layers > bytes) pages--;
  return pages;
}

/** The cache's memory: one buffer, [layers, pages, pageSize, entry], each layer aligned to 256 bytes. */
export class LatentCachePool {
  readonly shape: LatentCacheShape;
  readonly pageCount: number;
  /** Bytes of one layer, padding included. */
  readonly layerBytes: number;
  readonly #buffer: DeviceBuffer;

  /** Allocates `pageCount` pages in every layer. Throws UserError when the device has no room. */
  constructor(device: Pick<Device, "allocate">, shape: LatentCacheShape, pageCount: number) {
    checkInteger("layers", shape.layers, { min: 1 });
    this.shape = shape;
    this.pageCount = checkInteger("pageCount", pageCount, { min: 1 });
    this.layerBytes = layerBytes(shape, pageCount);
    this.#buffer = device.allocate(this.layerBytes * shape.layers, "latent cache");
  }

  get bytes(): number {
    return this.#buffer.bytes;
  }

  /** The pages of one layer, [pages, pageSize, entry]. Throws RangeError for a layer that does not exist. */
  layer(index: number): DeviceBuffer {
    checkInteger("index", index, { min: 0, max: this.shape.layers - 1 });
    const bytes = cacheEntryBytes(this.shape) * this.shape.pageSize * this.pageCount;
    return this.#buffer.slice(index * this.layerBytes, bytes);
  }

  /** Gives the memory back. */
  free(): void {
    this.#buffer.free();
  }
}
