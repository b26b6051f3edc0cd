export {
  type CacheDType,
  cacheEntryBytes,
  cacheTokenBytes,
  LatentCachePool,
  type LatentCacheShape,
  pagesThatFit,
} from "./latent-cache-pool.ts";
export { PageAllocator } from "./page-allocator.ts";
export { type CachedSequence, type PageCopy, PagedLatentCache } from "./paged-latent-cache.ts";
