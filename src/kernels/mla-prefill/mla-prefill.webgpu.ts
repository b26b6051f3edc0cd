import type { KernelSource, Launch } from "../../device/device.ts";
import { latentDtypeCode } from "../common/latent-cache.ts";
import { hasMatrixUnits } from "../common/projection.matrix.webgpu.ts";
import { dtypeCode } from "../common/weight.ts";
import attendMatrixCode from "./mla-prefill.attend.subgroup-matrix.wgsl.ts";
import attendCode from "./mla-prefill.attend.wgsl.ts";
import expandMatrixCode from "./mla-prefill.expand.subgroup-matrix.wgsl.ts";
import expandCode from "./mla-prefill.expand.wgsl.ts";
import type { MlaPrefillArguments } from "./mla-prefill.ts";

/** EDGE of mla-prefill.expand.wgsl, and of its sibling on subgroup matrices. */
const EDGE = 64;
const MATRIX_EDGE = 128;
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

/** Bytes of workgroup memory of mla-prefill.attend.subgroup-matrix.wgsl. */
function matrixBytes({ nopeWidth, ropeWidth, valueWidth }: MlaPrefillArguments, subgroups: number): number {
  const tiles = 2 * 32 * (nopeWidth + ropeWidth + 8 + valueWidth + 8);
  return tiles + subgroups * (4 * 512 + 2 * 16 * 40 + 4 * 16) + 16;
}

/**
 * Subgroups of a workgroup of the kernels on subgroup matrices, which multiply in f16; 0 where the adapter, the stored types or the widths do
 * not suit them.
 */
export function prefillSubgroups(target: Launch["target"], args: MlaPrefillArguments): 0 | 4 | 8 {
  const { cache, kvB, nopeWidth, ropeWidth, valueWidth, latentWidth } = args;
  if (args.webgpu?.variant === "portable" || !hasMatrixUnits(target)) return 0;
  if (cache.dtype === "f32" || kvB.dtype === "f32" || latentWidth % 32 !== 0) return 0;
  if ([nopeWidth, ropeWidth, valueWidth].some((width) => width % 16 !== 0)) return 0;
  const room = target.limits.webgpu?.workgroupBytes ?? 0;
  if (matrixBytes(args, 8) <= room) return 8;
  return matrixBytes(args, 4) <= room ? 4 : 0;
}

function headGroups(launch: Launch, args: MlaPrefillArguments, valueBytes: number): HeadGroups {
  const named = Math.floor(args.blockTable.bytes / 4) * args.cache.pageSize;
  const tokens = Math.min(args.maxLen ?? named, named);
  const headBytes = valueBytes * tokens * (args.nopeWidth + args.valueWidth);
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

const matrixEnables = ["f16", "subgroups", "chromium_experimental_subgroup_matrix"];

function expandKernel(args: MlaPrefillArguments, scratchBytes: number, subgroups: number): KernelSource {
  const constants = { ...cacheConstants(args), DTYPE: dtypeCode[args.kvB.dtype] };
  const code = subgroups > 0 ? { code: expandMatrixCode, enables: matrixEnables } : { code: expandCode };
  return {
    name: "mla-prefill.expand",
    buffers: ["cache", "blockTable", "cacheSeqlens", "kvB"],
    scalars: integers(["tokens", "firstRow", "groupRows", "headRows", "rowBlocks"]),
    webgpu: { ...code, constants, scratchBytes },
  };
}

/** How the kernel on subgroup matrices is laid out for these widths. */
function matrixConstants({ nopeWidth, ropeWidth, valueWidth }: MlaPrefillArguments, subgroups: number) {
  const fetches = (width: number) => Math.ceil(width / 8 / subgroups);
  return {
    ...{ SUBGROUPS: subgroups, QUERY_STEPS: (nopeWidth + ropeWidth) / 16, OUTPUTS: valueWidth / 16 },
    ...{ NOPE_FETCHES: fetches(nopeWidth), ROPE_FETCHES: fetches(ropeWidth) },
    VALUE_FETCHES: fetches(valueWidth),
  };
}

function attendKernel(args: MlaPrefillArguments, scratchBytes: number, subgroups: number): KernelSource {
  const { nopeWidth: NOPE, valueWidth: VALUE } = args;
  const shared = { ...cacheConstants(args), NOPE, VALUE };
  const entry =
    subgroups > 0
      ? {
          code: attendMatrixCode,
          enables: matrixEnables,
          constants: { ...shared, ...matrixConstants(args, subgroups) },
        }
      : { code: attendCode, constants: { ...shared, ROWS, WORKGROUP: 128 } };
  return {
    name: "mla-prefill.attend",
    buffers: ["q", "cache", "blockTable", "cacheSeqlens", "rowCount", "out"],
    scalars: [...integers(["tokens", "firstHead", "groupHeads", "heads", "chunks"]), ["base2Scale", "f32"]],
    webgpu: { ...entry, scratchBytes },
  };
}

/** `mlaPrefill` on WebGPU, its arguments checked: for each group of heads, keys and values are expanded, then attended to. */
export function enqueueWebGpu(launch: Launch, args: MlaPrefillArguments): void {
  const { q, cache, blockTable, cacheSeqlens, kvB, out, rowCount, heads, nopeWidth, valueWidth } = args;
  const subgroups = prefillSubgroups(launch.target, args);
  const group = headGroups(launch, args, subgroups > 0 ? 2 : 4);
  const [edge, rows] = subgroups > 0 ? [MATRIX_EDGE, 16 * subgroups] : [EDGE, ROWS];
  const headRows = nopeWidth + valueWidth;
  const chunks = Math.ceil((nopeWidth + args.ropeWidth) / CHUNK);
  const expand = expandKernel(args, group.scratchBytes, subgroups);
  const attend = attendKernel(args, group.scratchBytes, subgroups);
  for (let first = 0; first < heads; first += group.heads) {
    const count = Math.min(group.heads, heads - first);
    const rowBlocks = Math.ceil((count * headRows) / edge);
    launch(
      expand,
      rowBlocks * Math.ceil(group.tokens / edge),
      [cache.buffer, blockTable, cacheSeqlens, kvB.buffer],
      [group.tokens, first * headRows, count * headRows, headRows, rowBlocks],
    );
    launch(
      attend,
      count * Math.ceil(args.maxRows / rows),
      [q, cache.buffer, blockTable, cacheSeqlens, rowCount, out],
      [group.tokens, first, count, heads, chunks, args.softmaxScale * Math.LOG2E],
    );
  }
}
