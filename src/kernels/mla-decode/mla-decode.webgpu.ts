import type { KernelSource, Launch } from "../../device/device.ts";
import { latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import { webGpuPartials } from "../common/mla-partials.webgpu.ts";
import mergeCode from "./mla-decode.merge.wgsl.ts";
import matrixCode from "./mla-decode.subgroup-matrix.wgsl.ts";
import type { MlaDecodeArguments, MlaDecodePartialArguments } from "./mla-decode.ts";
import code from "./mla-decode.wgsl.ts";

/** Channels that pass through workgroup memory at a time: CHUNK vectors of four in mla-decode.wgsl. */
const CHUNK = 32;
/** Rows of a workgroup on subgroup matrices. */
const MATRIX_ROWS = 16;
const modes = ["full", "causal", "indices"] as const;

/** How the rows of a workgroup are laid out over its invocations; see mla-decode.wgsl. */
function shapeOf(
  latentWidth: number,
  span: number,
): { ROWS: number; ROW_VECTORS: number; WORKGROUP: number } {
  const least = latentWidth === 128 ? 8 : 4;
  const ROWS = span <= least ? least : span <= 8 ? 8 : 16;
  const ROW_VECTORS = latentWidth === 512 && ROWS === 16 ? 2 : 1;
  return { ROWS, ROW_VECTORS, WORKGROUP: ((latentWidth / 4) * (ROWS / 4)) / ROW_VECTORS };
}

/** Bytes of workgroup memory of mla-decode.subgroup-matrix.wgsl. */
function matrixBytes({ latentWidth, ropeWidth }: MlaDecodePartialArguments): number {
  return 2 * 32 * (latentWidth + ropeWidth + 8) + 4 * 4 * 16 * 32 + 2 * 32 * 40 + 256;
}

/**
 * Whether the split stage multiplies on subgroup matrices: only where it is asked for, since that kernel, mended after it gave wrong
 * results on an H100, has not run on a GPU again. Throws RangeError where it is asked for and cannot run.
 */
function usesSubgroupMatrix(launch: Launch, args: MlaDecodePartialArguments): boolean {
  if (args.webgpu?.variant !== "subgroup-matrix") return false;
  const { features, webgpu } = launch.target.limits;
  const isThere = ["subgroup-matrix", "shader-f16", "subgroups"].every((name) => features.has(name));
  const [least, most] = webgpu?.subgroupSizes ?? [0, 0];
  const isWide = least === 32 && most === 32 && (webgpu?.workgroupBytes ?? 0) >= matrixBytes(args);
  if (isThere && isWide && args.cache.dtype !== "f32") return true;
  throw new RangeError("webgpu.variant: this adapter and cache do not suit subgroup-matrix");
}

const matrixEnables = ["f16", "subgroups", "chromium_experimental_subgroup_matrix"];

function partialKernel(
  args: MlaDecodePartialArguments,
  rows: ReturnType<typeof shapeOf> | null,
): KernelSource {
  const integers = ["sQ", "heads", "splits", "leastSplit", "tableWidth", "pages", "chunks"];
  return {
    name: "mla-decode.partial",
    buffers: ["q", "cache", "table", "lengths", "batchCount", "partials", "stats"],
    scalars: [...integers.map((label) => [label, "i32"] as const), ["softmaxScale", "f32"]],
    webgpu: {
      ...(rows === null ? { code: matrixCode, enables: matrixEnables } : { code }),
      constants: {
        ...(rows ?? { ROWS: MATRIX_ROWS }),
        LATENT: args.latentWidth,
        ROPE: args.ropeWidth,
        LATENT_DTYPE: latentDtypeCode(args.cache.dtype),
        PAGE_SIZE: args.cache.pageSize,
        MODE: modes.indexOf(args.mask),
        COUNTED: args.batchCount !== undefined,
      },
    },
  };
}

/** The split stage on WebGPU, its arguments checked. */
export function enqueueWebGpuPartial(launch: Launch, args: MlaDecodePartialArguments): void {
  const { splits, leastSplit, partials, stats } = webGpuPartials(args, args.workspace);
  const sparse = args.mask === "indices";
  const span = sparse ? args.heads : args.sQ * args.heads;
  const shape = usesSubgroupMatrix(launch, args) ? null : shapeOf(args.latentWidth, span);
  const blocks = Math.ceil(span / (shape?.ROWS ?? MATRIX_ROWS)) * (sparse ? args.sQ : 1);
  const table = sparse ? args.indices : args.blockTable;
  const lengths = sparse ? args.indices : args.cacheSeqlens;
  launch(
    partialKernel(args, shape),
    args.batch * splits * blocks,
    [args.q, args.cache.buffer, table, lengths, args.batchCount ?? lengths, partials, stats],
    [
      ...[args.sQ, args.heads, splits, leastSplit],
      ...[sparse ? args.maxLen : args.maxPages, latentCachePages(args.cache, args)],
      (args.latentWidth + args.ropeWidth) / CHUNK,
      // Scores are in base 2.
      args.softmaxScale * Math.LOG2E,
    ],
  );
}

function mergeKernel({ latentWidth, batchCount }: MlaDecodeArguments): KernelSource {
  return {
    name: "mla-decode.merge",
    buffers: ["partials", "stats", "batchCount", "out", "lse"],
    scalars: [
      ["rows", "i32"],
      ["splits", "i32"],
    ],
    webgpu: { code: mergeCode, constants: { LATENT: latentWidth, COUNTED: batchCount !== undefined } },
  };
}

/** `mlaDecode` on WebGPU, its arguments checked: the split stage, then the merge. */
export function enqueueWebGpu(launch: Launch, args: MlaDecodeArguments): void {
  enqueueWebGpuPartial(launch, args);
  const { splits, partials, stats } = webGpuPartials(args, args.workspace);
  const rows = args.sQ * args.heads;
  launch(
    mergeKernel(args),
    args.batch * rows,
    [partials, stats, args.batchCount ?? stats, args.out, args.lse],
    [rows, splits],
  );
}
