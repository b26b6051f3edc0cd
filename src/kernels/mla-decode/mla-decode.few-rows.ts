// How the few-rows kernel's clusters lie on a GPU: what each size would take, by measured parts.

/** What a call looks like before its lengths are known. */
export interface FewRowsCall {
  readonly batch: number;
  /** Query rows a block, and blocks of them a sequence: each reads all of its tokens. */
  readonly rowsABlock: number;
  readonly rowBlocks: number;
  /** Tiles of 64 tokens of the longest sequence that fits the block table. */
  readonly mostTiles: number;
  /** Tiles that a cluster takes at least. */
  readonly leastTiles: number;
  /** Values of a cached token. */
  readonly width: number;
}

/** Blocks a cluster, and how many clusters share the tokens for each block of rows. */
export interface FewRowsChoice {
  readonly cluster: number;
  readonly groups: number;
  /** What it takes by the estimate, in µs. */
  readonly cost: number;
}

/** Parts of a call of the few-rows kernel on an H100, in µs. */
interface FewRowsParts {
  /** Beside everything below. */
  readonly start: number;
  /** A block's own work on a tile. */
  readonly tile: number;
  /** Waiting for the last of several clusters, and a round of the merge: 8 splits, of which a block of a cluster of 8 has an eighth. */
  readonly arrive: number;
  readonly merge: number;
  /** Working on several sequences in turn. */
  readonly walk: number;
}

// Fitted to 450 calls, of which each shape's faster ones count more: batches of 1 to 128, 16 to 128 heads, 512 to 8,192 tokens, every
// cluster size (benchmarks/results/h100/2026-11-25-decode-plans.json). The plan that these choose is 0.6 % slower at the mean than
// the best one measured.
const upTo16: FewRowsParts = { start: 4.45, tile: 1.48, arrive: 1.1, merge: 0.69, walk: 5.3 };
const upTo32: FewRowsParts = { start: 6.2, tile: 1.93, arrive: 0.5, merge: 1.9, walk: 9.4 };
/** What clusters of a size take beside clusters of 8. */
const clusterCost: Readonly<Record<number, number>> = { 1: 1.2, 2: 0.95, 4: 0.1, 8: 0 };
/** All blocks' reading of a tile of 576 values a token from memory, and from the second-level cache where several read it. */
const READ = 0.027 / 576;
const READ_AGAIN = 0.0145 / 576;

/** What a plan without clusters to spare has to gain before it is taken: lengths that differ are shared out better with them. */
const SPARE = 1.1;

/** What clusters of one size would take, so many of them for each block of rows. */
function costOf(call: FewRowsCall, cluster: number, groups: number): number {
  const { batch, rowsABlock, rowBlocks, mostTiles, leastTiles, width } = call;
  const parts = rowsABlock === 32 ? upTo32 : upTo16;
  const shares = Math.floor(groups / batch);
  const even = Math.max(
    Math.ceil(mostTiles / (Math.max(1, shares) * cluster)),
    Math.ceil(leastTiles / cluster),
  );
  const tilesABlock = shares === 0 ? (batch * mostTiles) / (groups * cluster) : even;
  const splits = Math.ceil(mostTiles / (even * cluster));
  const reading = batch * mostTiles * width * Math.max(READ, rowBlocks * READ_AGAIN);
  const work = Math.max(tilesABlock * parts.tile, reading);
  const rounds = (8 / cluster) * Math.ceil(splits / 8);
  const sharing = shares === 0 ? parts.walk : splits > 1 ? parts.arrive + parts.merge * rounds : 0;
  return parts.start + work + (clusterCost[cluster] ?? 0) + sharing;
}

/** The choices of one cluster size: all clusters that fit the GPU, or one a sequence, so that nothing is left to merge. */
function choicesOf(call: FewRowsCall, cluster: number, resident: number): FewRowsChoice[] {
  const all = Math.floor(resident / call.rowBlocks);
  if (all === 0) return [];
  const useful = call.batch * Math.ceil(call.mostTiles / Math.max(cluster, call.leastTiles));
  const groups = Math.min(all, useful);
  const choice = { cluster, groups, cost: costOf(call, cluster, groups) };
  if (groups <= call.batch) return [choice];
  return [choice, { cluster, groups: call.batch, cost: SPARE * costOf(call, cluster, call.batch) }];
}

/** The fastest of `sizes`; `residentOf` says how many clusters of a size run at the same time. */
export function chooseClusters(
  call: FewRowsCall,
  sizes: readonly number[],
  residentOf: (cluster: number) => number,
): FewRowsChoice {
  const choices = sizes.flatMap((size) => choicesOf(call, size, residentOf(size)));
  const [first, ...others] = choices;
  if (first === undefined) return { cluster: 1, groups: 1, cost: Number.POSITIVE_INFINITY };
  return others.reduce((best, one) => (one.cost < best.cost ? one : best), first);
}

/** The same estimate for the many-rows kernel, alone or in pairs of blocks that read the same tiles; fitted to the same calls. */
export function manyRowsCost(call: FewRowsCall, groups: number, isPair: boolean): number {
  const { batch, mostTiles, leastTiles, width } = call;
  const tilesABlock = Math.max(Math.ceil((batch * mostTiles) / groups), Math.min(leastTiles, mostTiles));
  const work = Math.max(tilesABlock * (isPair ? 2.05 : 0.75), batch * mostTiles * width * READ);
  const splits = Math.ceil(mostTiles / tilesABlock);
  // The fewer pieces a sequence has, the more blocks work on two: short ones cannot hide how long the other's queries take.
  const crossing = tilesABlock <= 16 ? 12 / splits : 0;
  return 11.3 + work + (splits > 1 ? 0.3 + 0.5 * Math.ceil(splits / 8) + crossing : 0);
}
