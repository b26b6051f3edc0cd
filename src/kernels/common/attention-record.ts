import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import type { DeviceBuffer, ScalarKind } from "../../device/device.ts";
import {
  checkKeyValueWidths,
  type KeyValueCache,
  type KeyValueWidths,
  keyValueDtypeCode,
} from "./key-value-cache.ts";
import { checkBytes } from "./weight.ts";

/** Sizes of attention over keys and values; fixed when a step is recorded. */
export interface AttentionSizes extends KeyValueWidths {
  /** Sequences recorded. */
  readonly batch: number;
  /** Query tokens of each sequence. */
  readonly sQ: number;
  /** Query heads: a multiple of kvHeads; head i reads the keys and values of head ⌊i · kvHeads / heads⌋. */
  readonly heads: number;
  /** Longest sequence, in cached tokens. */
  readonly maxLen: number;
  /** Of the tokens that a row may see, the last `window` alone (a sliding window); default: all. */
  readonly window?: number | undefined;
}

/** What `attentionDecode` and `standardAttention` take. */
export interface AttentionArguments extends AttentionSizes {
  /** f32 [batch, sQ, heads, headWidth]. */
  readonly q: DeviceBuffer;
  readonly cache: KeyValueCache;
  /** i32 [batch, maxPages]; entries past a sequence's pages are not read. */
  readonly blockTable: DeviceBuffer;
  readonly maxPages: number;
  /** i32 [batch]: cached tokens, the sQ new ones included; may be 0. */
  readonly cacheSeqlens: DeviceBuffer;
  /** Causal: query token j sees the first len − sQ + 1 + j tokens. Full: all len. */
  readonly mask: "causal" | "full";
  readonly softmaxScale: number;
  readonly workspace: DeviceBuffer;
  /** i32 [1]: sequences in use; later ones are neither read nor written. Default: all. */
  readonly batchCount?: DeviceBuffer | undefined;
  /** f32 [batch, sQ, heads, headWidth]; zeros for a row that sees no token. */
  readonly out: DeviceBuffer;
  /** f32 [batch, sQ, heads]: natural log-sum-exp of the scaled scores, +∞ for a row that sees no token. */
  readonly lse: DeviceBuffer;
}

/** Query rows of an item at most: they share the conversion of keys and values to float32. */
const MOST_ROWS = 32;

/** Buffers of every launch, in the order of attention-record.as.ts. */
export const attentionBuffers = [
  "q",
  "keys",
  "values",
  "table",
  "lengths",
  "batchCount",
  "workspace",
  "out",
  "lse",
] as const;

/** Scalars of every launch, in the order of attention-record.as.ts. */
export const attentionScalars: readonly (readonly [name: string, kind: ScalarKind])[] = [
  ["dtype", "i32"],
  ["pageSize", "i32"],
  ["tableWidth", "i32"],
  ["sQ", "i32"],
  ["heads", "i32"],
  ["kvHeads", "i32"],
  ["width", "i32"],
  ["rowBlock", "i32"],
  ["causal", "i32"],
  ["window", "i32"],
  ["softmaxScale", "f32"],
  ["counted", "i32"],
  ["parts", "i32"],
  ["offset", "i32"],
];

/** Throws TypeError or RangeError for sizes that the kernels do not take. */
export function checkAttentionSizes(sizes: AttentionSizes): void {
  for (const name of ["batch", "sQ", "heads", "maxLen"] as const) checkInteger(name, sizes[name], { min: 1 });
  checkKeyValueWidths(sizes);
  if (sizes.heads % sizes.kvHeads !== 0) {
    throw new RangeError(`heads must be a multiple of kvHeads, got ${sizes.heads} and ${sizes.kvHeads}`);
  }
  if (sizes.window !== undefined) checkInteger("window", sizes.window, { min: 1 });
}

/** Throws TypeError or RangeError for arguments that do not fit each other; `workspaceBytes` is what the launches need. */
export function checkAttention(args: AttentionArguments, workspaceBytes: number): void {
  checkAttentionSizes(args);
  checkFinite("softmaxScale", args.softmaxScale);
  checkOneOf("mask", args.mask, ["causal", "full"]);
  const rows = args.batch * args.sQ * args.heads;
  checkBytes("q", args.q, rows * args.headWidth * 4);
  checkBytes("out", args.out, rows * args.headWidth * 4);
  checkBytes("lse", args.lse, rows * 4);
  checkBytes("workspace", args.workspace, workspaceBytes);
  checkInteger("maxPages", args.maxPages, { min: Math.ceil(args.maxLen / args.cache.pageSize) });
  checkBytes("blockTable", args.blockTable, args.batch * args.maxPages * 4);
  checkBytes("cacheSeqlens", args.cacheSeqlens, args.batch * 4);
}

/** Blocks of rows that read one head's keys and values, and rows a block. */
export function attentionRowBlocks({ sQ, heads, kvHeads }: AttentionSizes): {
  rowBlock: number;
  blocks: number;
} {
  const span = (sQ * heads) / kvHeads;
  const rowBlock = Math.min(MOST_ROWS, span);
  return { rowBlock, blocks: Math.ceil(span / rowBlock) };
}

/** Buffers and scalars of a launch: `parts` and `offset` are its own. */
export function attentionLaunch(
  args: AttentionArguments,
  parts: number,
  offset: number,
): { buffers: DeviceBuffer[]; scalars: number[] } {
  const { cache, q, blockTable, cacheSeqlens, workspace, out, lse } = args;
  const batchCount = args.batchCount ?? cacheSeqlens;
  return {
    buffers: [q, cache.keys, cache.values, blockTable, cacheSeqlens, batchCount, workspace, out, lse],
    scalars: [
      keyValueDtypeCode(cache.dtype),
      cache.pageSize,
      args.maxPages,
      args.sQ,
      args.heads,
      args.kvHeads,
      args.headWidth,
      attentionRowBlocks(args).rowBlock,
      args.mask === "causal" ? 1 : 0,
      args.window ?? 0,
      args.softmaxScale,
      args.batchCount === undefined ? 0 : 1,
      parts,
      offset,
    ],
  };
}
