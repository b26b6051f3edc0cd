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
}

/** Blocks a cluster, and how many clusters share the tokens for each block of rows. */
export interface FewRowsChoice {
  readonly cluster: number;
  readonly groups: number;
  /** What it takes by the estimate, in µs. */
  readonly cost: number;
}

/** Parts of a call on an H100, in µs: a block's own work on a tile, by its rows. */
const tileWork = (rowsABlock: number) => (rowsABlock === 32 ? 1.9 : 1.35);
/** All blocks' reading of a tile from memory at 3.05 TB/s, and from the second-level cache where several read it. */
const READ = 0.0242;
const READ_AGAIN = 0.0134;
/** Until the first tile is asked for. */
const START = 3;
/** Exchange within a cluster, by its size; waiting for the last of several clusters; working on two sequences in turn. */
const exchange: Readonly<Record<number, number>> = { 1: 0.3, 2: 0.5, 4: 0.7, 8: 0.9 };
const ARRIVE = 1;
const WALK = 4;
/** One round of a merge: 8 splits of 1,024 values, of which a block of a cluster of 8 has one, and a block alone 8. */
const MERGE = 0.6;

/** The choice of one cluster size, or null where a cluster of that size does not fit the GPU. */
function choiceOf(call: FewRowsCall, cluster: number, resident: number): FewRowsChoice | null {
  const { batch, rowsABlock, rowBlocks, mostTiles, leastTiles } = call;
  const all = Math.floor(resident / rowBlocks);
  if (all === 0) return null;
  const shares = Math.floor(all / batch);
  const even = Math.max(
    Math.ceil(mostTiles / (Math.max(1, shares) * cluster)),
    Math.ceil(leastTiles / cluster),
  );
  const tilesABlock = shares === 0 ? (batch * mostTiles) / (all * cluster) : even;
  const splits = Math.ceil(mostTiles / (even * cluster));
  const reading = batch * mostTiles * Math.max(READ, rowBlocks * READ_AGAIN);
  const work = Math.max(tilesABlock * tileWork(rowsABlock), reading);
  const merging = splits > 1 ? ARRIVE + MERGE * (8 / cluster) * Math.ceil(splits / 8) : 0;
  const cost = START + work + (exchange[cluster] ?? 0) + merging + (shares === 0 ? WALK : 0);
  const useful = batch * Math.ceil(mostTiles / Math.max(cluster, leastTiles));
  return { cluster, groups: Math.min(all, useful), cost };
}

/** The fastest of `sizes`; `residentOf` says how many clusters of a size run at the same time. */
export function chooseClusters(
  call: FewRowsCall,
  sizes: readonly number[],
  residentOf: (cluster: number) => number,
): FewRowsChoice {
  const choices = sizes.flatMap((size) => choiceOf(call, size, residentOf(size)) ?? []);
  const [first, ...others] = choices;
  if (first === undefined) return { cluster: 1, groups: 1, cost: Number.POSITIVE_INFINITY };
  return others.reduce((best, one) => (one.cost < best.cost ? one : best), first);
}

/** The same estimate for the many-rows kernel: an offset and each block's work on its tiles, fitted to an H100's figures. */
export function manyRowsCost(call: FewRowsCall, groups: number): number {
  const shared = Math.ceil((call.batch * call.mostTiles) / groups);
  return 12 + 3.2 * Math.max(shared, Math.min(call.leastTiles, call.mostTiles));
}
