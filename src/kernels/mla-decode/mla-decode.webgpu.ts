import type { KernelSource, Launch } from "../../device/device.ts";
import { latentCachePages, latentDtypeCode } from "../common/latent-cache.ts";
import { webGpuPartials } from "../common/mla-partials.webgpu.ts";
import mergeCode from "./mla-decode.merge.wgsl.ts";
import matrixCode from "./mla-decode.subgroup-matrix.wgsl.ts";
import type { MlaDecodeArguments, MlaDecodePartialArguments } from "./mla-decode.ts";
import code from "./mla-decode.wgsl.ts";

/** Channels that pass through workgroup memory at a time: CHUNK vectors of four in mla-decode.wgsl. */
const CHUNK = 32;
/** How WebGPU runs `mlaDecode`; for tests and measurements. */
export interface MlaDecodeWebGpuOptions {
  /** Default: subgroup matrices where the adapter and the cache suit them, else what the adapter has of subgroups and f16. */
  readonly variant?: "portable" | "subgroup-matrix";
  /** Splits of a sequence, at most; default: as many as fill a GPU. */
  readonly splits?: number;
}

/** WORKGROUP of mla-decode.merge.wgsl. */
const MERGE_WORKGROUP = 128;
const modes = ["full", "causal", "indices"] as const;

/** How the rows of a workgroup are laid out over its invocations; see mla-decode.wgsl. */
function portableConstants({ target }: Launch, args: MlaDecodePartialArguments, span: number) {
  const { latentWidth, cache, webgpu } = args;
  const { features } = target.limits;
  const [smallest, largest] = target.limits.webgpu?.subgroupSizes ?? [0, 0];
  const mayUse = (feature: string) => webgpu?.variant !== "portable" && features.has(feature);
  const least = latentWidth === 128 ? 8 : 4;
  const ROWS = span <= least ? least : span <= 8 ? 8 : 16;
  const ROW_VECTORS = latentWidth === 512 && ROWS === 16 ? 2 : 1;
  const WORKGROUP = ((latentWidth / 4) * (ROWS / 4)) / ROW_VECTORS;
  const KEY_LOADS = 512 / WORKGROUP;
  const DEPTH = Math.max(1, 8 / KEY_LOADS);
  return {
    ...{ ROWS, ROW_VECTORS, WORKGROUP, KEY_LOADS, DEPTH, LAST: DEPTH - 1, TOKENS: ROWS / 4 },
    HALF: mayUse("shader-f16") && cache.dtype !== "f32",
    SUBGROUPS: mayUse("subgroups") && smallest === largest && smallest >= 8 && largest <= 64,
  };
}

/** How the kernel on subgroup matrices is laid out: see mla-decode.subgroup-matrix.wgsl. */
const matrixShape = { ROWS: 16, TERMS: 2, TILE: 32, SUBGROUPS: 8 } as const;

/** Its constants that follow from the widths too. */
function matrixConstants({ latentWidth, ropeWidth }: MlaDecodePartialArguments) {
  const { TILE, SUBGROUPS } = matrixShape;
  const steps = (latentWidth + ropeWidth) / 16;
  const keyGroups = SUBGROUPS / (TILE / 16);
  return {
    ...matrixShape,
    ...{ OUTPUTS: latentWidth / 16 / SUBGROUPS, FETCHES: (latentWidth / 8) * (TILE / (32 * SUBGROUPS)) },
    QUERY_LOADS: Math.ceil((latentWidth + ropeWidth) / 8 / (2 * SUBGROUPS)),
    ...{ STEPS_EACH: Math.ceil(steps / keyGroups), UNEVEN: steps % keyGroups !== 0 },
  };
}

/** Bytes of workgroup memory of mla-decode.subgroup-matrix.wgsl. */
function matrixBytes(args: MlaDecodePartialArguments): number {
  const { TERMS, TILE, SUBGROUPS } = matrixShape;
  const keys = 2 * TILE * (args.latentWidth + args.ropeWidth + 8);
  return keys + 4 * SUBGROUPS * 256 + 2 * TERMS * 16 * (TILE + 8) + 64 + 4 * (TILE + 4);
}

/**
 * Whether the split stage multiplies on subgroup matrices: where the adapter and the cache suit them, unless the portable one is asked
 * for. Throws RangeError where they are asked for and do not suit.
 */
function usesSubgroupMatrix(launch: Launch, args: MlaDecodePartialArguments): boolean {
  const variant = args.webgpu?.variant;
  if (variant === "portable") return false;
  const { features, webgpu } = launch.target.limits;
  const isThere = ["subgroup-matrix", "shader-f16", "subgroups"].every((name) => features.has(name));
  const [least, most] = webgpu?.subgroupSizes ?? [0, 0];
  const isWide = least === 32 && most === 32 && (webgpu?.workgroupBytes ?? 0) >= matrixBytes(args);
  if (isThere && isWide && args.cache.dtype !== "f32") return true;
  if (variant === undefined) return false;
  throw new RangeError("webgpu.variant: this adapter and cache do not suit subgroup-matrix");
}

const matrixEnables = ["f16", "subgroups", "chromium_experimental_subgroup_matrix"];

/** How the split stage is built: the subgroup matrices' kernel where `isMatrix`. */
interface Build {
  readonly isMatrix: boolean;
  readonly constants: { readonly ROWS: number } & Readonly<Record<string, number | boolean>>;
  readonly enables: readonly string[];
}

function buildFor(launch: Launch, args: MlaDecodePartialArguments, span: number): Build {
  if (usesSubgroupMatrix(launch, args)) {
    return { isMatrix: true, constants: matrixConstants(args), enables: matrixEnables };
  }
  const constants = portableConstants(launch, args, span);
  const enables = [...(constants.HALF ? ["f16"] : []), ...(constants.SUBGROUPS ? ["subgroups"] : [])];
  return { isMatrix: false, constants, enables };
}

function partialKernel(
  args: MlaDecodePartialArguments,
  { isMatrix, constants, enables }: Build,
): KernelSource {
  const integers = ["sQ", "heads", "splits", "leastSplit", "tableWidth", "pages", "chunks"];
  return {
    name: "mla-decode.partial",
    buffers: ["q", "cache", "table", "lengths", "batchCount", "partials", "stats"],
    scalars: [...integers.map((label) => [label, "i32"] as const), ["softmaxScale", "f32"]],
    webgpu: {
      ...{ code: isMatrix ? matrixCode : code, enables },
      constants: {
        ...constants,
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
  const { splits, leastSplit, partials, stats } = webGpuPartials(args, args.workspace, args.webgpu?.splits);
  const sparse = args.mask === "indices";
  const span = sparse ? args.heads : args.sQ * args.heads;
  const build = buildFor(launch, args, span);
  const blocks = Math.ceil(span / build.constants.ROWS) * (sparse ? args.sQ : 1);
  const table = sparse ? args.indices : args.blockTable;
  const lengths = sparse ? args.indices : args.cacheSeqlens;
  launch(
    partialKernel(args, build),
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

/** Invocations that share the splits of four channels in mla-decode.merge.wgsl: four splits each or more. */
function mergeLanes(latentWidth: number, splits: number): number {
  const least = Math.max(1, MERGE_WORKGROUP / (latentWidth / 4));
  let lanes = least;
  while (lanes < 16 && lanes * 4 < splits) lanes *= 2;
  return lanes;
}

function mergeKernel({ latentWidth, batchCount }: MlaDecodeArguments, lanes: number): KernelSource {
  return {
    name: "mla-decode.merge",
    buffers: ["partials", "stats", "batchCount", "out", "lse"],
    scalars: [
      ["rows", "i32"],
      ["splits", "i32"],
    ],
    webgpu: {
      code: mergeCode,
      constants: { LATENT: latentWidth, COUNTED: batchCount !== undefined, LANES: lanes, MERGE_DEPTH: 8 },
    },
  };
}

/** `mlaDecode` on WebGPU, its arguments checked: the split stage, then the merge. */
export function enqueueWebGpu(launch: Launch, args: MlaDecodeArguments): void {
  enqueueWebGpuPartial(launch, args);
  const { splits, partials, stats } = webGpuPartials(args, args.workspace, args.webgpu?.splits);
  const rows = args.sQ * args.heads;
  const lanes = mergeLanes(args.latentWidth, splits);
  launch(
    mergeKernel(args, lanes),
    args.batch * rows * ((args.latentWidth / 4) * (lanes / MERGE_WORKGROUP)),
    [partials, stats, args.batchCount ?? stats, args.out, args.lse],
    [rows, splits],
  );
}
