import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { CudaEntry, CudaTensorMap, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { latentDtypeCode } from "../common/latent-cache.ts";
import { type HeadGroups, headGroups } from "./head-groups.ts";
import type { MlaPrefillArguments } from "./mla-prefill.ts";

const module = "mla-prefill.tensor.sm90.cubin";
/** Tiles of mla-prefill.tensor.sm90.cu. */
const TOKEN_TILE = 128;
const EXPAND_ROWS = 256;
const EXPAND_STAGES = 4;
const QUERIES = 128;
/** Rotary values of a gathered row, zeros past d_r. */
const ROTARY = 64;
/** Bytes for barriers, and for moving to the next multiple of 1024. */
const BOOKKEEPING = 2048;

/** Cached tokens a tile, by d_n, d_r and d_v: the builds. */
const tileKeys: Readonly<Record<string, number>> = {
  "128_64_128": 128,
  "64_64_128": 128,
  "64_32_64": 128,
  "192_64_256": 64,
};

const widthsOf = ({ nopeWidth, ropeWidth, valueWidth }: MlaPrefillArguments) =>
  `${nopeWidth}_${ropeWidth}_${valueWidth}`;

/** Whether the tensor-core kernels take this: q and weights in the same 16 bits, and a build for the widths. */
export function takesTensor(args: MlaPrefillArguments, { features }: DeviceLimits): boolean {
  const { qDtype = "f32", outDtype = "f32", kvB, latentWidth } = args;
  if (!features.has("sm_90") || qDtype === "f32" || kvB.dtype !== qDtype) return false;
  return widthsOf(args) in tileKeys && latentWidth % 64 === 0 && (outDtype === "f32" || outDtype === qDtype);
}

const integers = (labels: readonly string[]) => labels.map((label) => [label, "i32"] as const);

/** Where things lie in the scratch memory, in 16-bit values: latents, rotary values, keys and values. */
function layoutOf(
  { latentWidth, nopeWidth, valueWidth }: MlaPrefillArguments,
  { tokens, heads }: HeadGroups,
) {
  const rows = nopeWidth + valueWidth;
  const map = (offset: number, count: number, columns: number, boxRows: number): CudaTensorMap => {
    return { buffer: { scratchOffset: 2 * offset }, rows: count, columns, boxRows, boxColumns: 64 };
  };
  const [rotary, expanded] = [tokens * latentWidth, tokens * (latentWidth + ROTARY)];
  return {
    rows,
    latents: map(0, tokens, latentWidth, TOKEN_TILE),
    rotary: (keys: number) => map(rotary, tokens, ROTARY, keys),
    expanded: (keys: number) => map(expanded, heads * tokens, rows, keys),
  };
}

type Layout = ReturnType<typeof layoutOf>;

function gather(launch: Launch, args: MlaPrefillArguments, dtype: WeightDType, groups: HeadGroups): void {
  const { latentWidth, ropeWidth, cache, blockTable, cacheSeqlens } = args;
  const kernel: KernelSource = {
    name: "mla-prefill.gather",
    buffers: ["cache", "blockTable", "cacheSeqlens"],
    scalars: integers(["latentWidth", "ropeWidth", "cacheDtype", "pageSize", "tokens"]),
    cuda: {
      ...{ module, function: `mlaPrefillGather_${dtype}`, blockSize: 256 },
      scratchBytes: groups.scratchBytes,
    },
  };
  const scalars = [latentWidth, ropeWidth, latentDtypeCode(cache.dtype), cache.pageSize, groups.tokens];
  launch(kernel, Math.ceil(groups.tokens / 8), [cache.buffer, blockTable, cacheSeqlens], scalars);
}

function expandKernel(args: MlaPrefillArguments, dtype: WeightDType, groups: HeadGroups, layout: Layout) {
  const { kvB, latentWidth } = args;
  const weights = { buffer: 0, rows: kvB.rows, columns: latentWidth, boxRows: EXPAND_ROWS, boxColumns: 64 };
  const entry: CudaEntry = {
    ...{ module, function: `mlaPrefillTensorExpand_${dtype}`, blockSize: 384 },
    sharedBytes: EXPAND_STAGES * (TOKEN_TILE + EXPAND_ROWS) * 128 + BOOKKEEPING,
    tensorMaps: [layout.latents, weights],
    scratchBytes: groups.scratchBytes,
  };
  return {
    name: "mla-prefill.expand",
    buffers: ["kvB", "cacheSeqlens"],
    scalars: integers(["firstRow", "groupRows", "rows", "latentWidth", "tokens"]),
    cuda: entry,
  } satisfies KernelSource;
}

function attendKernel(args: MlaPrefillArguments, dtype: WeightDType, groups: HeadGroups, layout: Layout) {
  const { heads, nopeWidth, ropeWidth, valueWidth, maxRows } = args;
  const keys = tileKeys[widthsOf(args)]!;
  const keyBoxes = nopeWidth / 64 + 1;
  const queries: CudaTensorMap = {
    ...{ buffer: 0, rows: maxRows, columns: heads * (nopeWidth + ropeWidth), boxRows: 64, boxColumns: 64 },
  };
  const entry: CudaEntry = {
    ...{ module, function: `mlaPrefillTensorAttend_${dtype}_${widthsOf(args)}`, blockSize: 384 },
    sharedBytes: 128 * (2 * keys * (keyBoxes + valueWidth / 64) + QUERIES * keyBoxes) + BOOKKEEPING,
    tensorMaps: [queries, layout.expanded(keys), layout.rotary(keys)],
    scratchBytes: groups.scratchBytes,
  };
  return {
    name: "mla-prefill.attend",
    buffers: ["q", "cacheSeqlens", "rowCount", "out"],
    scalars: [
      ...integers(["firstHead", "groupHeads", "heads", "tokens", "outDtype"]),
      ["base2Scale", "f32"] as const,
    ],
    cuda: entry,
  } satisfies KernelSource;
}

/** `mlaPrefill` on Hopper's tensor cores, its arguments checked and taken by {@link takesTensor}. */
export function enqueueTensor(launch: Launch, args: MlaPrefillArguments): void {
  const { heads, latentWidth, maxRows, kvB, cacheSeqlens, qDtype = "bf16", outDtype = "f32" } = args;
  const rows = args.nopeWidth + args.valueWidth;
  const bytes = bytesPerElement(qDtype);
  const beside = { extraBytes: (latentWidth + ROTARY) * bytes, tile: TOKEN_TILE };
  const groups = headGroups(args, rows * bytes, beside);
  const layout = layoutOf(args, groups);
  gather(launch, args, qDtype, groups);
  const expand = expandKernel(args, qDtype, groups, layout);
  const attend = attendKernel(args, qDtype, groups, layout);
  const { tokens } = groups;
  for (let first = 0; first < heads; first += groups.heads) {
    const count = Math.min(groups.heads, heads - first);
    const tiles = (tokens / TOKEN_TILE) * Math.ceil((count * rows) / EXPAND_ROWS);
    launch(
      expand,
      Math.min(launch.target.limits.computeUnits, tiles),
      [kvB.buffer, cacheSeqlens],
      [first * rows, count * rows, rows, latentWidth, tokens],
    );
    launch(
      attend,
      Math.ceil(maxRows / QUERIES) * count,
      [args.q, cacheSeqlens, args.rowCount, args.out],
      [first, count, heads, tokens, outDtype === "f32" ? 0 : 1, args.softmaxScale * Math.LOG2E],
    );
  }
}
