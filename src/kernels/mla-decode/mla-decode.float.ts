import type { KernelSource, Launch } from "../../device/device.ts";
import { latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import { mlaDecodeLayout, mlaDecodeWorkspaceBytes } from "../common/mla-partials.ts";
import { checkBytes } from "../common/weight.ts";
import type { MlaDecodeArguments, MlaDecodePartialArguments } from "./mla-decode.ts";

/** Query rows a block, and tokens a tile; ROWS and TILE of mla-decode.float.cu. */
const ROWS = 8;
const TILE = 32;

function partialKernel({ latentWidth, ropeWidth }: MlaDecodePartialArguments): KernelSource {
  const width = latentWidth + ropeWidth;
  const integers = [
    "dtype",
    "pageSize",
    "pages",
    "tableWidth",
    "sQ",
    "heads",
    "splits",
    "mode",
    "statsOffset",
  ];
  return {
    name: "mla-decode.partial",
    buffers: ["q", "cache", "table", "lengths", "batchCount", "partials"],
    scalars: [...[...integers, "counted"].map((label) => [label, "i32"] as const), ["softmaxScale", "f32"]],
    cuda: {
      module: "mla-decode.float.fatbin",
      function: `mlaDecodeFloat_${latentWidth}_${ropeWidth}`,
      blockSize: 32 * ROWS,
      sharedBytes: 4 * (TILE * (width + 4) + ROWS * width + 2 * ROWS * TILE + ROWS + TILE),
    },
  };
}

/** The split stage in float32 over a cache in any form, its arguments checked. */
export function enqueueFloatPartial(launch: Launch, args: MlaDecodePartialArguments): void {
  checkBytes("workspace", args.workspace, mlaDecodeWorkspaceBytes(args));
  const { splits, statsOffset } = mlaDecodeLayout(args);
  const sparse = args.mask === "indices";
  const span = sparse ? args.heads : args.sQ * args.heads;
  const blocks = Math.ceil(span / ROWS) * (sparse ? args.sQ : 1);
  const table = sparse ? args.indices : args.blockTable;
  const lengths = sparse ? args.indices : args.cacheSeqlens;
  launch(
    partialKernel(args),
    args.batch * splits * blocks,
    [args.q, args.cache.buffer, table, lengths, args.batchCount ?? lengths, args.workspace],
    [
      ...[latentDtypeCode(args.cache.dtype), args.cache.pageSize, latentCachePages(args.cache, args)],
      ...[sparse ? args.maxLen : args.maxPages, args.sQ, args.heads, splits],
      ["full", "causal", "indices"].indexOf(args.mask),
      ...[statsOffset, args.batchCount === undefined ? 0 : 1, args.softmaxScale],
    ],
  );
}

/** `mlaDecode` with float32 queries on CUDA: the split stage above, then `merge`. */
export function enqueueFloat(launch: Launch, args: MlaDecodeArguments, merge: KernelSource): void {
  enqueueFloatPartial(launch, args);
  const { splits, statsOffset } = mlaDecodeLayout(args);
  const rows = args.sQ * args.heads;
  launch(
    merge,
    args.batch * rows,
    [args.workspace, args.batchCount ?? args.workspace, args.out, args.lse],
    [
      ...[args.latentWidth, rows, splits, statsOffset],
      ...[args.batchCount === undefined ? 0 : 1, (args.outDtype ?? "f32") === "f32" ? 1 : 0],
    ],
  );
}
