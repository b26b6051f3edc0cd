import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import { isPowerOfTwo } from "../../base/integers.ts";
import type { CudaEntry, DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { type LatentCache, latentCachePages } from "../common/latent-cache.ts";
import type { LatentProjections } from "../common/latent-projections.ts";
import { checkBytes, checkWeight } from "../common/weight.ts";

/** One record per launch of `mlaLayer`. n is `maxRows`, the sequences recorded, of each of which there is one new token. */
export interface MlaLayerArguments extends LatentProjections {
  /** i32 [n]: page · pageSize + offset of each sequence's last token, which this launch appends; −1 appends nothing. */
  readonly slots: DeviceBuffer;
  /** The pool of one layer. */
  readonly cache: LatentCache;
  /** i32 [n, maxPages]. */
  readonly blockTable: DeviceBuffer;
  readonly maxPages: number;
  /** i32 [n]: cached tokens of each sequence, the new one included. */
  readonly cacheSeqlens: DeviceBuffer;
  readonly softmaxScale: number;
  /** [n, heads · valueWidth]; zeros for a sequence without tokens. */
  readonly out: DeviceBuffer;
  /** Element type of out; default f32. */
  readonly outDtype?: WeightDType;
  /** i32 [1]: sequences in use; later ones are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
  readonly heads: number;
  /** d_n: 128. */
  readonly nopeWidth: number;
  /** d_r: 64. */
  readonly ropeWidth: number;
  /** d_v: 128. */
  readonly valueWidth: number;
  /** d_c: 512. */
  readonly latentWidth: number;
}

/** What decides whether one launch does. */
export type MlaLayerShape = Pick<
  MlaLayerArguments,
  | "kvB"
  | "cache"
  | "maxRows"
  | "maxPages"
  | "heads"
  | "nopeWidth"
  | "ropeWidth"
  | "valueWidth"
  | "latentWidth"
>;

/** Heads of a block of rows, tokens of a tile, and what the kernel is made for. */
const ROWS = 32;
const TILE = 64;
const MOST_BATCH = 32;
const widths = { latentWidth: 512, ropeWidth: 64, nopeWidth: 128, valueWidth: 128 } as const;
/** Words of the kernel's mailbox: marks of 32 sequences, those that have seen them, a head's query, a block's partial result. */
const MARKS = 2 * MOST_BATCH;
const QUERY_WORDS = (widths.latentWidth + widths.ropeWidth) / 2;
const PART_WORDS = (ROWS * widths.latentWidth) / 2 + 2 * ROWS;
const BOX_BYTES = 64 * 128;
/** 25 boxes, two tiles of probabilities, rows of 8 tokens twice, and 4 KiB of barriers and statistics. */
const SHARED_BYTES = 25 * BOX_BYTES + 2 * ROWS * 128 + 8 * (1040 + 528) + 4096;

/** Codes of a stored form in elements.cuh. */
const storedCode: Readonly<Record<WeightDType, number>> = { f32: 0, f16: 1, bf16: 2 };

/** What keeps `mlaLayer` from running this, in words; null when nothing does. */
export function refusesMlaLayer({ kind, limits }: Launch["target"], shape: MlaLayerShape): string | null {
  if (kind !== "cuda" || !limits.features.has("sm_90")) return "a device other than a Hopper GPU";
  const { cache, kvB, heads, maxRows } = shape;
  for (const [name, width] of Object.entries(widths)) {
    const given = shape[name as keyof typeof widths];
    if (given !== width) return `${name} ${given}`;
  }
  if (cache.dtype !== "bf16" && cache.dtype !== "f16") return `a cache in ${cache.dtype}`;
  if (kvB.dtype !== cache.dtype) return `weights in ${kvB.dtype} over a cache in ${cache.dtype}`;
  if (cache.pageSize < TILE || !isPowerOfTwo(cache.pageSize)) return `pages of ${cache.pageSize}`;
  if (heads > limits.computeUnits) return `${heads} heads on ${limits.computeUnits} multiprocessors`;
  return maxRows > MOST_BATCH ? `a batch of ${maxRows}` : null;
}

/** Where one launch is faster than three, by the layer's bench on an H100: heads at least, sequences at most, tiles of 64 tokens at most. */
const LEAST_HEADS = 64;
const MOST_ROWS = 8;
const MOST_TILES = 640;

/** Whether one launch is taken, and faster than `mlaPrologue`, `mlaDecode` and `mlaEpilogue` where all sequences are as long as they may be. */
export function prefersMlaLayer(target: Launch["target"], shape: MlaLayerShape): boolean {
  const { heads, maxRows, maxPages, cache } = shape;
  const tiles = (maxRows * maxPages * cache.pageSize) / TILE;
  const faster = heads >= LEAST_HEADS && maxRows <= MOST_ROWS && tiles <= MOST_TILES;
  return faster && refusesMlaLayer(target, shape) === null;
}

const buffers = [
  ...["q", "latent", "normWeight", "positions", "slots", "rotaryTable", "queryScale", "kvB", "cache"],
  ...["blockTable", "cacheSeqlens", "rowCount", "out"],
];
const scalars = [
  ...[
    ...["maxRows", "heads", "interleaved", "hasQueryScale", "cacheRows", "pageSize", "tableWidth"],
    ...["outDtype", "groups", "rowBlocks"],
  ].map((label) => [label, "i32"] as const),
  ["epsilon", "f32"] as const,
  ["softmaxScale", "f32"] as const,
];

/** How the blocks lie on the GPU. */
interface Plan {
  readonly grid: number;
  /** Blocks of 32 heads. */
  readonly rowBlocks: number;
  /** Blocks that share the tokens, for each block of heads. */
  readonly groups: number;
}

function entryOf({ kvB, cache }: MlaLayerArguments, cacheRows: number): CudaEntry {
  const width = widths.latentWidth + widths.ropeWidth;
  return {
    ...{ module: "mla-layer.sm90.cubin", function: `mlaLayer_${kvB.dtype}` },
    ...{ blockSize: 384, sharedBytes: SHARED_BYTES, overlaps: true },
    tensorMaps: [
      {
        ...{ buffer: buffers.indexOf("kvB"), rows: kvB.rows, columns: widths.latentWidth },
        ...{ boxRows: 64, boxColumns: 64 },
      },
      {
        ...{ buffer: buffers.indexOf("cache"), rows: cacheRows, columns: width },
        ...{ boxRows: Math.min(TILE, cache.pageSize), boxColumns: 64, boxes: 3 },
      },
    ],
  };
}

/** One block a multiprocessor, as many as run at the same time, since they wait for each other. */
function planOf({ heads }: MlaLayerArguments, { computeUnits: grid }: DeviceLimits): Plan {
  const rowBlocks = Math.ceil(heads / ROWS);
  return { grid, rowBlocks, groups: Math.floor(grid / rowBlocks) };
}

function checkArguments(launch: Launch, args: MlaLayerArguments): void {
  const reason = refusesMlaLayer(launch.target, args);
  if (reason !== null) throw new RangeError(`mlaLayer does not take ${reason}`);
  const { kvB, heads, maxRows, latentWidth, ropeWidth, valueWidth, nopeWidth, maxPages } = args;
  checkWeight("kvB", kvB);
  const rows = heads * (nopeWidth + valueWidth);
  if (kvB.rows !== rows || kvB.columns !== latentWidth) {
    throw new RangeError(`kvB must be [${rows}, ${latentWidth}], got [${kvB.rows}, ${kvB.columns}]`);
  }
  checkBytes("q", args.q, 4 * maxRows * heads * (nopeWidth + ropeWidth));
  checkBytes("out", args.out, maxRows * heads * valueWidth * bytesPerElement(args.outDtype ?? "f32"));
  checkBytes("blockTable", args.blockTable, 4 * maxRows * maxPages);
}

/**
 * A layer's attention for one new token of each sequence in one launch: what `mlaPrologue`, `mlaDecode` and `mlaEpilogue` do one after the
 * other (DeepSeek-V2, arXiv 2405.04434, eq. 9–19), on Hopper. Throws RangeError for what {@link refusesMlaLayer} names and for
 * buffers that are too small.
 */
export function mlaLayer(launch: Launch, args: MlaLayerArguments): void {
  checkArguments(launch, args);
  const { cache, maxRows, heads, positions, queryScale, outDtype = "f32" } = args;
  const cacheRows = latentCachePages(cache, args) * cache.pageSize;
  const entry = entryOf(args, cacheRows);
  const { grid, rowBlocks, groups } = planOf(args, launch.target.limits);
  // Pieces that blocks have of sequences: with each, the number of the sequence or of the group is one more.
  const parts = (maxRows + groups) * rowBlocks;
  const counters = MARKS + maxRows * heads * QUERY_WORDS + parts * PART_WORDS;
  const cuda = { ...entry, counters };
  const source: KernelSource = { name: "mla-layer", buffers, scalars, cuda };
  launch(
    source,
    grid,
    [
      ...[args.q, args.latent, args.normWeight, positions, args.slots, args.rotaryTable],
      ...[queryScale ?? positions, args.kvB.buffer, cache.buffer],
      ...[args.blockTable, args.cacheSeqlens, args.rowCount, args.out],
    ],
    [
      ...[maxRows, heads, args.rotary === "interleaved" ? 1 : 0, queryScale === null ? 0 : 1],
      ...[cacheRows, cache.pageSize, args.maxPages, storedCode[outDtype]],
      ...[groups, rowBlocks, args.epsilon, args.softmaxScale],
    ],
  );
}
