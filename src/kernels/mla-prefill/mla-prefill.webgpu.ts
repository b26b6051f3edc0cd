import type { KernelSource, Launch } from "../../device/device.ts";
import { latentDtypeCode } from "../common/latent-cache.ts";
import { dtypeCode } from "../common/weight.ts";
import attendCode from "./mla-prefill.attend.wgsl.ts";
import expandCode from "./mla-prefill.expand.wgsl.ts";
import type { MlaPrefillArguments } from "./mla-prefill.ts";

/** EDGE of mla-prefill.expand.wgsl. */
const EDGE = 64;
/** Queries of a workgroup, and channels that pass through its memory at a time; see mla-prefill.attend.wgsl. */
const ROWS = 16;
const CHUNK = 32;
/** Keys and values of a group of heads take no more memory than this, unless one head's do. */
const MOST_SCRATCH = 256 * 2 ** 20;

interface HeadGroups {
  /** Cached tokens for which there is room. */
  readonly tokens: number;
  /** Heads that are expanded at a time. */
  readonly heads: number;
  readonly scratchBytes: number;
}

function headGroups(launch: Launch, args: MlaPrefillArguments): HeadGroups {
  const named = Math.floor(args.blockTable.bytes / 4) * args.cache.pageSize;
  const tokens = Math.min(args.maxLen ?? named, named);
  const headBytes = 4 * tokens * (args.nopeWidth + args.valueWidth);
  const most = Math.min(launch.target.limits.webgpu?.bindingBytes ?? 2 ** 27, MOST_SCRATCH);
  const groups = Math.ceil(args.heads / Math.max(1, Math.floor(most / headBytes)));
  const heads = Math.ceil(args.heads / groups);
  return { tokens, heads, scratchBytes: Math.max(256, heads * headBytes) };
}

function cacheConstants({ latentWidth, ropeWidth, cache }: MlaPrefillArguments) {
  const { dtype, pageSize } = cache;
  return {
    ...{ LATENT: latentWidth, ROPE: ropeWidth, LATENT_DTYPE: latentDtypeCode(dtype), PAGE_SIZE: pageSize },
  };
}

const integers = (labels: readonly string[]) => labels.map((label) => [label, "i32"] as const);

function expandKernel(args: MlaPrefillArguments, scratchBytes: number): KernelSource {
  const constants = { ...cacheConstants(args), DTYPE: dtypeCode[args.kvB.dtype] };
  return {
    name: "mla-prefill.expand",
    buffers: ["cache", "blockTable", "cacheSeqlens", "kvB"],
    scalars: integers(["tokens", "firstRow", "groupRows", "headRows", "rowBlocks"]),
    webgpu: { code: expandCode, constants, scratchBytes },
  };
}

function attendKernel(args: MlaPrefillArguments, scratchBytes: number): KernelSource {
  const { nopeWidth: NOPE, valueWidth: VALUE } = args;
  const constants = { ...cacheConstants(args), NOPE, VALUE, ROWS, WORKGROUP: 128 };
  return {
    name: "mla-prefill.attend",
    buffers: ["q", "cache", "blockTable", "cacheSeqlens", "rowCount", "out"],
    scalars: [...integers(["tokens", "firstHead", "groupHeads", "heads", "chunks"]), ["base2Scale", "f32"]],
    webgpu: { code: attendCode, constants, scratchBytes },
  };
}

/** `mlaPrefill` on WebGPU, its arguments checked: for each group of heads, keys and values are expanded, then attended to. */
export function enqueueWebGpu(launch: Launch, args: MlaPrefillArguments): void {
  const { q, cache, blockTable, cacheSeqlens, kvB, out, rowCount, heads, nopeWidth, valueWidth } = args;
  const group = headGroups(launch, args);
  const headRows = nopeWidth + valueWidth;
  const chunks = Math.ceil((nopeWidth + args.ropeWidth) / CHUNK);
  const expand = expandKernel(args, group.scratchBytes);
  const attend = attendKernel(args, group.scratchBytes);
  for (let first = 0; first < heads; first += group.heads) {
    const count = Math.min(group.heads, heads - first);
    const rowBlocks = Math.ceil((count * headRows) / EDGE);
    launch(
      expand,
      rowBlocks * Math.ceil(group.tokens / EDGE),
      [cache.buffer, blockTable, cacheSeqlens, kvB.buffer],
      [group.tokens, first * headRows, count * headRows, headRows, rowBlocks],
    );
    launch(
      attend,
      count * Math.ceil(args.maxRows / ROWS),
      [q, cache.buffer, blockTable, cacheSeqlens, rowCount, out],
      [group.tokens, first, count, heads, chunks, args.softmaxScale * Math.LOG2E],
    );
  }
}
