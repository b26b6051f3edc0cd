// What the many-rows kernel's warps have in common: each block's walk over its share of the tokens, derived from the sequence lengths, and
// the partial results of blocks that share a sequence.
#pragma once
#include "schedule.cuh"

namespace flashmla {

/** Two blocks of query rows that read the same tiles, as a cluster; `rank` is this block's. */
struct Pair {
  bool is;
  int rank;
};

/** Clusters are alone with their tokens here: a block, or a pair of row blocks. */
__device__ __forceinline__ Place placeOfPair(const Arguments& a, const Pair& pair) {
  Place place;
  place.rank = 0;
  place.size = 1;
  const int size = pair.is ? 1 : 0, cluster = blockIdx.x >> size, clusters = a.rowBlocks >> size;
  place.group = clusters == 1 ? cluster : divide(cluster, clusters);
  place.rowBlock = ((cluster - place.group * clusters) << size) + pair.rank;
  return place;
}

/** A piece of one sequence, whose first unit is `start`. */
struct Stretch : Item {
  int start;
};

/** A block's walk over its units (tiles, or splits of fixed size); units are numbered through all sequences. */
struct Walk {
  int unit, end, chunk, group;
  /** The sequence reached, its first unit, its units, its length; units of all sequences. */
  int sequence, start, units, length, total;
  /** The first piece, found once for all warps, in registers; the unit after it, or −1 once it has been taken. */
  Stretch first;
  int afterFirst;
  /** Whether another block has a part of one of its sequences, which are the first and the last at most, or may have where splits are fixed. */
  int shares;
};

__device__ __forceinline__ int lengthOf(const Arguments& a, int sequence) {
  return max(0, min(__ldg(a.lengths + sequence), a.tableWidth * a.pageSize));
}

__device__ __forceinline__ int tilesOf(int length) { return max(1, (length + TILE - 1) / TILE); }

/** A sequence without tokens counts as one tile, so that its zeros get written. */
__device__ __forceinline__ int unitsOf(const Arguments& a, int length) {
  return a.splitTiles > 0 ? ceilDivide(tilesOf(length), a.splitTiles) : tilesOf(length);
}

/** Lengths that a lane holds at once: of sequences `base` + lane, + 32 and so on; −1 past the last. */
constexpr int HELD = 4;

__device__ __forceinline__ void holdLengths(const Arguments& a, int base, int batch, int (&lengths)[HELD]) {
#pragma unroll
  for (int k = 0; k < HELD; k++) {
    const int sequence = base + k * 32 + static_cast<int>(threadIdx.x % 32);
    lengths[k] = sequence < batch ? __ldg(a.lengths + sequence) : -1;
  }
#pragma unroll
  for (int k = 0; k < HELD; k++) {
    const int sequence = base + k * 32 + static_cast<int>(threadIdx.x % 32);
    lengths[k] = sequence < batch ? max(0, min(lengths[k], a.tableWidth * a.pageSize)) : -1;
  }
}

/** The walk of this block's cluster, at its beginning; called by a whole warp. */
__device__ __forceinline__ Walk findWalk(const Arguments& a, const Place& place) {
  const int lane = threadIdx.x % 32, batch = a.counted ? min(a.batch, __ldg(a.batchCount)) : a.batch;
  int total = 0, longest = 0, lengths[HELD];
  for (int base = 0; base < batch; base += 32 * HELD) {
    holdLengths(a, base, batch, lengths);
#pragma unroll
    for (int k = 0; k < HELD; k++) {
      const int units = lengths[k] < 0 ? 0 : unitsOf(a, lengths[k]);
      total += units;
      longest = max(longest, units);
    }
  }
  total = __reduce_add_sync(~0u, total);
  longest = __reduce_max_sync(~0u, longest);
  Walk walk = {};
  walk.group = place.group;
  walk.total = total;
  walk.chunk = max(a.splitTiles > 0 ? 1 : a.leastTiles, ceilDivide(total, a.groups));
  if (a.splitTiles == 0 && total > 0 && batch > 1) walk.chunk = alignChunk(walk.chunk, longest, max(2, walk.chunk / 8));
  walk.unit = min(total, place.group * walk.chunk);
  walk.end = min(total, walk.unit + walk.chunk);
  if (walk.unit == walk.end) return walk;
  for (int base = 0, before = 0; base < batch; base += 32 * HELD) {
    if (batch > 32 * HELD) holdLengths(a, base, batch, lengths);
#pragma unroll
    for (int k = 0; k < HELD; k++) {
      const int units = lengths[k] < 0 ? 0 : unitsOf(a, lengths[k]);
      int through = units;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, through, step);
        if (lane >= step) through += other;
      }
      const unsigned past = __ballot_sync(~0u, before + through > walk.unit);
      if (past != 0) {
        const int at = __ffs(past) - 1;
        walk.sequence = base + k * 32 + at;
        walk.length = __shfl_sync(~0u, lengths[k], at);
        walk.units = __shfl_sync(~0u, units, at);
        walk.start = before + __shfl_sync(~0u, through, at) - walk.units;
        return walk;
      }
      before += __shfl_sync(~0u, through, 31);
    }
  }
  return walk;
}

/** Finds the next piece of the walk; false when there is none. */
__device__ __forceinline__ bool findStretch(const Arguments& a, Walk& walk, Stretch& stretch) {
  if (walk.unit >= walk.end) return false;
  while (walk.start + walk.units <= walk.unit) {
    walk.start += walk.units;
    walk.sequence++;
    walk.length = lengthOf(a, walk.sequence);
    walk.units = unitsOf(a, walk.length);
  }
  const int start = walk.start, stop = start + walk.units;
  stretch.sequence = walk.sequence;
  stretch.length = walk.length;
  stretch.start = start;
  if (a.splitTiles > 0) {
    stretch.split = walk.unit - start;
    stretch.splits = walk.units;
    stretch.firstTile = stretch.split * a.splitTiles;
    stretch.endTile = min(stretch.firstTile + a.splitTiles, tilesOf(stretch.length));
    walk.unit++;
    return true;
  }
  const int end = min(walk.end, stop), chunkStart = walk.group * walk.chunk;
  // Only a block's first and last sequence go beyond its share.
  int before = 0, after = 0;
  for (int edge = chunkStart; start < edge; edge -= walk.chunk) before++;
  for (int edge = chunkStart + walk.chunk; edge < stop; edge += walk.chunk) after++;
  stretch.split = before;
  stretch.splits = before + 1 + after;
  stretch.firstTile = walk.unit - start;
  stretch.endTile = end - start;
  walk.unit = end;
  return true;
}

/** The walk of this block's cluster; called by a whole warp. */
__device__ __forceinline__ Walk openWalk(const Arguments& a, const Place& place) {
  Walk walk = findWalk(a, place);
  const int unit = walk.unit;
  walk.afterFirst = findStretch(a, walk, walk.first) ? walk.unit : -1;
  const bool isAll = walk.unit == walk.end;
  walk.unit = unit;
  walk.shares = !isAll || walk.first.splits > 1;
  return walk;
}

/** The next piece of the walk; false when there is none. Both may lie in shared memory: one thread calls it then. */
__device__ __forceinline__ bool nextStretch(const Arguments& a, Walk& walk, Stretch& stretch) {
  if (walk.afterFirst < 0) return findStretch(a, walk, stretch);
  walk.unit = walk.afterFirst;
  walk.afterFirst = -1;
  const Stretch first = walk.first;
  stretch.sequence = first.sequence;
  stretch.firstTile = first.firstTile;
  stretch.endTile = first.endTile;
  stretch.length = first.length;
  stretch.split = first.split;
  stretch.splits = first.splits;
  stretch.start = first.start;
  return true;
}

/** `target` = `source`, both in shared memory, by a warp: a word a lane. */
__device__ __forceinline__ void copyWords(Walk& target, const Walk& source) {
  constexpr int WORDS = sizeof(Walk) / 4;
  static_assert(WORDS <= 32, "a word a lane");
  const int lane = threadIdx.x % 32;
  if (lane < WORDS) reinterpret_cast<int*>(&target)[lane] = reinterpret_cast<const int*>(&source)[lane];
}

/** The place in scratch of a part: a group has at most two unfinished sequences, its first and its last, and splits of fixed size one each. */
__device__ __forceinline__ int partOf(const Arguments& a, const Walk& walk, const Stretch& stretch, int rowBlock) {
  const int slot = a.splitTiles > 0 ? stretch.start + stretch.split : 2 * walk.group + (stretch.split == 0 ? 1 : 0);
  return slot * a.rowBlocks + rowBlock;
}

/** A part's values in 16 bits, 8 together. */
template <int VALUES> __device__ __forceinline__ uint4* partValues(const Arguments& a, int part) {
  return reinterpret_cast<uint4*>(a.scratch) + static_cast<size_t>(part) * (VALUES / 8);
}

template <int STATS> __device__ __forceinline__ float4* partStats(const Arguments& a, int part) {
  return reinterpret_cast<float4*>(a.scratch + a.statsOffset) + static_cast<size_t>(part) * STATS;
}

/** Where all parts of a stretch's sequence lie. */
struct Parts {
  int first, chunks, rowBlock, rowBlocks;

  __device__ __forceinline__ Parts(const Arguments& a, const Walk& walk, const Stretch& stretch, int rowBlock)
      : rowBlock(rowBlock), rowBlocks(a.rowBlocks) {
    chunks = a.splitTiles > 0 ? 0 : 1;
    first = a.splitTiles > 0 ? stretch.start : walk.group - stretch.split;
  }

  __device__ __forceinline__ int partOf(int split) const {
    const int slot = chunks == 0 ? first + split : 2 * (first + split) + (split == 0 ? 1 : 0);
    return slot * rowBlocks + rowBlock;
  }
};

/** Cycles that a block waits at most for the others' parts before it leaves the merge to them. */
constexpr int PATIENCE = 20000;

/**
 * The merge of a sequence's parts, once all have arrived: each of its blocks has a slice of it. Nobody waits without a limit, so blocks
 * that are not on the GPU yet cannot hang the others: a block that gives up leaves its slice to one that comes later, which then does all
 * slices of its bit, whoever else does some of them too: all write the same. Two counters: parts that have arrived, with the bits left to
 * others in the upper half, and blocks that know their slices; both are back at 0 afterwards. Threads 0 to 255 call it.
 */
struct Sharing {
  /** Bits that stand for slices, each for one or several; and one for the block's own slice alone. */
  static constexpr int BITS = 16, OWN = 16;

  static __device__ __forceinline__ unsigned* countersOf(const Arguments& a, int rowBlock, int sequence) {
    return a.counters + (sequence * a.rowBlocks + rowBlock) * 2;
  }

  /** Says that one of this block's parts is written; one thread, after a fence, some time before the part's merge. */
  static __device__ __forceinline__ void arrive(const Arguments& a, int rowBlock, int sequence) {
    atomicAdd(countersOf(a, rowBlock, sequence), 1);
  }

  /** `own`: this block's slice, or −1; what it is to do goes to `mine` in shared memory. */
  __device__ __forceinline__ Sharing(const Arguments& a, int rowBlock, const Stretch& stretch, int own, int slices, int& mine) {
    if (threadIdx.x != 0) return;
    unsigned* const counters = countersOf(a, rowBlock, stretch.sequence);
    const unsigned all = stretch.splits;
    unsigned seen = loadAcquire(counters);
    for (const long long start = clock64(); (seen & 0xffff) != all && clock64() - start < PATIENCE;) seen = loadAcquire(counters);
    unsigned left = seen >> 16, taken = own >= 0 ? 1u << OWN : 0;
    if ((seen & 0xffff) != all) {
      // Whoever comes last sees this, or the parts have all arrived meanwhile.
      const unsigned bit = own < 0 ? 0 : 1u << own * min(slices, BITS) / slices;
      left = (atomicOr(counters, bit << 16) & 0xffff) == all ? bit : 0;
      taken = 0;
    }
    if (left != 0) taken |= atomicAnd(counters, ~(left << 16)) >> 16 & left;
    fenceDevice();
    mine = static_cast<int>(taken);
    if (atomicAdd(counters + 1, 1) == all - 1) {
      counters[0] = 0;
      counters[1] = 0;
    }
  }

  /** Until the block knows. */
  __device__ __forceinline__ void await() const { meet(ALL_CONSUMERS, CONSUMERS); }
};

/** The next item of a warp, whose walk and item lie in shared memory; false when there is none. */
__device__ __forceinline__ bool takeStretch(const Arguments& a, Walk& walk, Stretch& stretch) {
  __syncwarp();
  const bool found = threadIdx.x % 32 == 0 && nextStretch(a, walk, stretch);
  const bool any = uniform(found) != 0;
  __syncwarp();
  return any;
}

}  // namespace flashmla
