import { isPowerOfTwo } from "../../base/integers.ts";
import type { CudaEntry, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import type { CudaDecode } from "./mla-decode.cuda.ts";
import { chooseClusters, manyRowsCost } from "./mla-decode.few-rows.ts";

/** Cached tokens a tile. */
const TILE = 64;
/** Sequences at most: the kernels keep their lengths in shared memory. */
const MOST_BATCH = 512;
/** Query rows of the few-rows kernel's builds, by latent width. */
const fewRows: Readonly<Record<number, readonly number[]>> = { 256: [16, 32], 512: [8, 16, 32] };
/** Rows a block of the many-rows kernel. */
const MANY_ROWS = 64;
/** Bytes for few rows' schedule, barriers and statistics. */
const BOOKKEEPING = 8192;
/** Floats from one row of scores to the next in the few-rows kernel, and entries of a block table that it copies. */
const PITCH = 68;
const NEAR_TABLE = 2048;
/** Tiles of 64 tokens that a block of many rows takes at least: fewer cost more to merge than they save. */
const LEAST_TILES = 2;

/** How the work lies on the GPU. */
export interface HopperPlan {
  /** Query rows a block, padding included. */
  readonly rowsABlock: number;
  readonly rowBlocks: number;
  /** Blocks a cluster: few rows share tokens, many rows read the same ones. */
  readonly cluster: number;
  /** What shares the tokens: clusters of few rows for each block of rows; for many rows, as many blocks as there are blocks of rows. */
  readonly groups: number;
  /** Thread blocks. */
  readonly grid: number;
  readonly splitTiles: number;
  readonly leastTiles: number;
  /** Partial results that can wait for their merge. */
  readonly slots: number;
}

/** What keeps the Hopper kernels from running this, in words; null when nothing does. */
export function takesHopper({ args }: CudaDecode, limits: DeviceLimits): string | null {
  if (!limits.features.has("sm_90")) return "a GPU other than Hopper";
  if (args.mask === "indices") return "indices";
  if (args.latentWidth < 256 || (args.ropeWidth !== 64 && args.latentWidth !== 256))
    return `widths ${args.latentWidth} and ${args.ropeWidth}`;
  if (args.cache.pageSize < 16 || !isPowerOfTwo(args.cache.pageSize))
    return `pages of ${args.cache.pageSize}`;
  return args.batch > MOST_BATCH ? `a batch of ${args.batch}` : null;
}

/** What one kernel would do, and how long it would take by the estimate of mla-decode.few-rows.ts. */
interface Candidate
  extends Pick<HopperPlan, "rowsABlock" | "rowBlocks" | "cluster" | "groups" | "leastTiles"> {
  readonly cost: number;
}

/** Blocks of `rowsABlock` query rows, in the clusters that suit them. */
function candidateOf(decode: CudaDecode, limits: DeviceLimits, rowsABlock: number): Candidate {
  const { args, options } = decode;
  const many = rowsABlock === MANY_ROWS;
  const rowBlocks = Math.ceil((args.sQ * args.heads) / rowsABlock);
  const residentOf = (size: number) => {
    const counted = size > 1 ? limits.residentClusters?.(entryOf(decode, rowsABlock, size)) : undefined;
    return counted ?? Math.floor(limits.computeUnits / size);
  };
  const leastTiles = options.leastTiles ?? (many ? LEAST_TILES : 1);
  const width = args.latentWidth + args.ropeWidth;
  const call = {
    batch: args.batch,
    rowsABlock,
    rowBlocks,
    mostTiles: mostTilesOf(decode),
    leastTiles,
    width,
  };
  if (!many) {
    return { rowsABlock, rowBlocks, leastTiles, ...chooseClusters(call, clustersOf(decode), residentOf) };
  }
  const cluster = pairOf(rowBlocks, options.cluster);
  const groups = Math.max(1, Math.floor(residentOf(cluster) / (rowBlocks / cluster)));
  return {
    rowsABlock,
    rowBlocks,
    leastTiles,
    cluster,
    groups,
    cost: manyRowsCost(call, groups, cluster === 2),
  };
}

/**
 * Query rows a block that come into question: few rows in one block, or in several where batch and context are small; up to 32 are
 * also tried as two blocks of 16. Fixed splits have one kernel, so that results do not depend on the batch.
 */
function blocksOfRows({ args, options }: CudaDecode): readonly number[] {
  const rows = args.sQ * args.heads;
  const few = fewRows[args.latentWidth] ?? [];
  const fitting = few.find((most) => rows <= most);
  if (options.splitTokens !== undefined) return [fitting ?? MANY_ROWS];
  if (fitting === undefined) return [MANY_ROWS, ...few.filter((most) => most >= 16)];
  return fitting === 32 ? [32, 16] : [fitting];
}

function mostTilesOf({ args, tableWidth }: CudaDecode): number {
  return Math.max(1, Math.ceil((tableWidth * args.cache.pageSize) / TILE));
}

/** Decides rows, clusters and splits from what is known when the step is recorded. */
export function planHopper(decode: CudaDecode, limits: DeviceLimits): HopperPlan {
  const { args, options } = decode;
  const splitTiles = (options.splitTokens ?? 0) / TILE;
  const candidates = blocksOfRows(decode).map((rows) => candidateOf(decode, limits, rows));
  const { cost: _, ...plan } = candidates.reduce((best, one) => (one.cost < best.cost ? one : best));
  const { groups, rowBlocks, cluster } = plan;
  const slots = splitTiles > 0 ? args.batch * Math.ceil(mostTilesOf(decode) / splitTiles) : 2 * groups;
  const grid = groups * rowBlocks * (plan.rowsABlock === MANY_ROWS ? 1 : cluster);
  return { ...plan, grid, splitTiles, slots };
}

/** Two blocks of many rows form a cluster where they can: they read the same tiles. */
function pairOf(rowBlocks: number, wanted: number | undefined): number {
  return rowBlocks % 2 === 0 && wanted !== 1 ? 2 : 1;
}

/** Cluster sizes to choose from. With fixed splits it is one, so that results do not depend on the batch. */
function clustersOf({ options }: CudaDecode): number[] {
  if (options.cluster !== undefined) return [options.cluster];
  return options.splitTokens === undefined ? [8, 4, 2, 1] : [4];
}

/** Many rows: three tiles' latent values, two rotary boxes, two boxes of queries, and 3 KiB of barriers and statistics. */
function manyRowsBytes(latentWidth: number): number {
  return 3 * TILE * latentWidth * 2 + 4 * TILE * 128 + 3072;
}

/** Few rows: two tiles, queries, probabilities, scores, table, and results where they have a place. */
function fewRowsBytes(rowsABlock: number, latentWidth: number): number {
  const width = latentWidth + 64;
  const tiles = 2 * TILE * width * 2 + rowsABlock * width * 2;
  const results = rowsABlock === 32 ? 0 : 2 * rowsABlock * (2 * latentWidth + 128);
  // bf16 probabilities are two terms where rows are few.
  const probabilities = rowsABlock * 128 * (rowsABlock === 32 ? 1 : 2);
  return tiles + probabilities + rowsABlock * (8 * PITCH + 12) + results + 4 * NEAR_TABLE + BOOKKEEPING;
}

function entryOf({ args, dtype, pages }: CudaDecode, rowsABlock: number, cluster: number): CudaEntry {
  const many = rowsABlock === MANY_ROWS;
  const width = args.latentWidth + args.ropeWidth;
  const stem = many ? "many-rows" : "few-rows";
  // What lies past an entry of 256 + 32 values comes as zeros by a map of two dimensions, which has room for 64 rotary ones.
  const flat = many || args.ropeWidth === 32;
  const name = `${many ? "ManyRows" : "FewRows"}_${dtype}_${args.latentWidth}${flat && !many ? "_32" : ""}`;
  return {
    module: `mla-decode.${stem}.sm90.cubin`,
    function: `mlaDecode${name}${many ? "" : `_${rowsABlock}`}`,
    blockSize: many ? 384 : 288,
    sharedBytes: many ? manyRowsBytes(args.latentWidth) : fewRowsBytes(rowsABlock, args.latentWidth),
    ...{ cluster, overlaps: true },
    tensorMaps: [
      {
        buffer: 1,
        rows: pages * args.cache.pageSize,
        columns: width,
        boxRows: Math.min(TILE, args.cache.pageSize),
        boxColumns: 64,
        ...(flat ? {} : { boxes: args.cache.pageSize < TILE ? 1 : width === 576 ? 3 : 5 }),
      },
      {
        buffer: 0,
        rows: args.batch * args.sQ * args.heads,
        columns: width,
        boxRows: rowsABlock,
        boxColumns: 64,
        ...(flat ? {} : { boxes: width / 64 }),
      },
    ],
  };
}

const integers = [
  "batch",
  "rows",
  "heads",
  "sQ",
  "pageSize",
  "tableWidth",
  "causal",
  "groups",
  "rowBlocks",
  "splitTiles",
  "leastTiles",
  "statsOffset",
  "counted",
  "outFloat",
] as const;

function kernelOf(decode: CudaDecode, plan: HopperPlan, statsOffset: number): KernelSource {
  const { rowsABlock, rowBlocks, cluster, slots } = plan;
  // Few rows: statistics for each rank's columns, a counter for each of its 8 warps; many rows: arrivals, blocks that know
  // their slices, and statistics of four values.
  const [copies, counters] = rowsABlock === MANY_ROWS ? [2, 2] : [cluster, cluster * 8];
  return {
    name: `mla-decode.${rowsABlock === MANY_ROWS ? "many-rows" : "few-rows"}`,
    buffers: ["q", "cache", "table", "lengths", "batchCount", "out", "lse"],
    scalars: [...integers.map((label) => [label, "i32"] as const), ["softmaxScale", "f32"]],
    cuda: {
      ...entryOf(decode, rowsABlock, cluster),
      scratchBytes: 4 * (statsOffset + slots * rowBlocks * copies * rowsABlock * 2),
      counters: decode.args.batch * rowBlocks * counters,
    },
  };
}

/** One launch: schedule, attention and merge. */
export function enqueueHopper(launch: Launch, decode: CudaDecode): void {
  const { args, lengths } = decode;
  const plan = planHopper(decode, launch.target.limits);
  const statsOffset = plan.slots * plan.rowBlocks * plan.rowsABlock * args.latentWidth;
  if (statsOffset > 2 ** 31 - 1) {
    throw new RangeError(
      `cuda.splitTokens: ${plan.slots} partial results are too many; take more tokens a split`,
    );
  }
  launch(
    kernelOf(decode, plan, statsOffset),
    plan.grid,
    [args.q, args.cache.buffer, decode.table, lengths, args.batchCount ?? lengths, args.out, args.lse],
    [
      args.batch,
      args.sQ * args.heads,
      args.heads,
      args.sQ,
      args.cache.pageSize,
      decode.tableWidth,
      args.mask === "causal" ? 1 : 0,
      plan.groups,
      plan.rowBlocks,
      plan.splitTiles,
      plan.leastTiles,
      statsOffset,
      args.batchCount === undefined ? 0 : 1,
      decode.outFloat ? 1 : 0,
      args.softmaxScale,
    ],
  );
}
