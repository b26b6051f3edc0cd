import type { MlaPrefillArguments } from "./mla-prefill.ts";

/** Keys and values of a group of heads take no more scratch memory than this, unless one head's do. */
const MOST_SCRATCH = 256 * 2 ** 20;

/** How many heads are expanded at a time, and into how much memory. */
export interface HeadGroups {
  /** Tokens for which there is room. */
  readonly tokens: number;
  /** Heads of a group; the last may have fewer. */
  readonly heads: number;
  readonly scratchBytes: number;
}

/**
 * Groups of heads whose keys and values of `bytes` bytes a token and head fit the scratch memory, of nearly equal size;
 * `extraBytes` a token lie beside. Tokens are rounded up to a multiple of `tile`.
 */
export function headGroups(
  args: MlaPrefillArguments,
  bytes: number,
  { extraBytes = 0, tile = 1 }: { readonly extraBytes?: number; readonly tile?: number } = {},
): HeadGroups {
  const named = Math.floor(args.blockTable.bytes / 4) * args.cache.pageSize;
  const tokens = Math.ceil(Math.min(args.maxLen ?? named, named) / tile) * tile;
  const fitting = Math.max(1, Math.floor(MOST_SCRATCH / (tokens * bytes)));
  const groups = Math.ceil(args.heads / fitting);
  const heads = Math.ceil(args.heads / groups);
  return { tokens, heads, scratchBytes: Math.max(256, tokens * (heads * bytes + extraBytes)) };
}
