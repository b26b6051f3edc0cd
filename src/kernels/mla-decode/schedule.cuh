// What the Hopper kernels share: each cluster derives its share of the work from the sequence lengths, and the partial results
// of a cluster's blocks, then of the clusters that share a sequence, are merged within the same launch.
#pragma once
#include "../common/sm90.cuh"

namespace flashmla {

/** Cached tokens a tile. */
constexpr int TILE = 64;
/** Sequences at most: their lengths lie in shared memory. */
constexpr int MOST_BATCH = 512;
/** Two warpgroups compute. */
constexpr int CONSUMERS = 256;
constexpr int ALL_CONSUMERS = 3;

struct Arguments {
  const void *q, *cache;
  const int *table, *lengths, *batchCount;
  void* out;
  float* lse;
  float* scratch;
  unsigned* counters;
  /** rows: query rows of a sequence, sQ · heads; groups: clusters that share the tokens; rowBlocks: clusters a group. */
  int batch, rows, heads, sQ, pageSize, tableWidth, causal, groups, rowBlocks;
  /** Tiles a split, or 0 for equal shares; tiles a cluster takes at least; where statistics begin in scratch, in floats. */
  int splitTiles, leastTiles, statsOffset, counted, outFloat;
  float softmaxScale;
};

/** Work is numbered in units: tiles, or splits of fixed size. prefix[b] counts the units before sequence b. */
struct Schedule {
  int prefix[MOST_BATCH + 1];
  int lengths[MOST_BATCH];
  /** Units of the longest sequence. */
  int longest;
  int lastArrived;
};

/** A piece of one sequence that a cluster works on in one go. */
struct Item {
  int sequence, firstTile, endTile, length, split, splits;
};

/** A cluster's walk over its units. */
struct Cursor {
  int unit, end, chunk, sequence, group;
};

/** Where this block stands: its cluster's group and block of query rows, its rank and its cluster's size. */
struct Place {
  int group, rowBlock, rank, size;
};

__device__ __forceinline__ int divide(int a, int b);

/** Of a few-rows block, without divisions where it can be. */
__device__ __forceinline__ Place placeOfCluster(const Arguments& a) {
  Place place;
  place.rank = clusterRank();
  place.size = clusterSize();
  place.group = blockIdx.x >> (31 - __clz(place.size));
  place.rowBlock = 0;
  if (a.rowBlocks > 1) {
    const int group = divide(place.group, a.rowBlocks);
    place.rowBlock = place.group - group * a.rowBlocks;
    place.group = group;
  }
  return place;
}

/** a / b of numbers that are not negative: the compiler's own division takes several times as long. */
__device__ __forceinline__ int divide(int a, int b) {
  int quotient = static_cast<int>(__fdividef(static_cast<float>(a), static_cast<float>(b)));
  while (quotient * b > a) quotient--;
  while (a - quotient * b >= b) quotient++;
  return quotient;
}

__device__ __forceinline__ int ceilDivide(int a, int b) { return divide(a + b - 1, b); }

/** Fills the schedule; called by one warp. A sequence without tokens counts as one tile, so that its zeros get written. */
__device__ __forceinline__ void buildSchedule(const Arguments& a, Schedule& schedule) {
  const int lane = threadIdx.x % 32;
  const int batch = a.counted ? min(a.batch, *a.batchCount) : a.batch;
  int before = 0, longest = 0;
  if (lane == 0) schedule.prefix[0] = 0;
  for (int base = 0; base < a.batch; base += 32) {
    const int b = base + lane;
    int units = 0;
    if (b < batch) {
      const int length = max(0, min(a.lengths[b], a.tableWidth * a.pageSize));
      units = max(1, (length + TILE - 1) / TILE);
      if (a.splitTiles > 0) units = ceilDivide(units, a.splitTiles);
      schedule.lengths[b] = length;
    }
    longest = max(longest, __reduce_max_sync(~0u, units));
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, units, step);
      if (lane >= step) units += other;
    }
    if (b < a.batch) schedule.prefix[b + 1] = before + units;
    before += __shfl_sync(~0u, units, 31);
  }
  if (lane == 0) schedule.longest = longest;
}

/**
 * Units of a cluster's equal share, moved up to where the longest sequence is cut evenly (or several fit whole) when that costs
 * no more than `most` units: a cluster that works on pieces of two sequences pays for two merges.
 */
__device__ __forceinline__ int alignChunk(int chunk, int longest, int most) {
  const int aligned = chunk >= longest ? ceilDivide(chunk, longest) * longest : ceilDivide(longest, divide(longest, chunk));
  return aligned - chunk <= most ? aligned : chunk;
}

__device__ __forceinline__ Cursor openCursor(const Arguments& a, const Schedule& schedule, const Place& place) {
  const int total = schedule.prefix[a.batch];
  const int least = a.splitTiles > 0 ? 1 : a.leastTiles;
  Cursor cursor;
  cursor.group = place.group;
  cursor.chunk = max(least, ceilDivide(total, a.groups));
  if (a.splitTiles == 0 && total > 0 && a.batch > 1) cursor.chunk = alignChunk(cursor.chunk, schedule.longest, max(2 * place.size, cursor.chunk / 8));
  cursor.unit = min(total, place.group * cursor.chunk);
  cursor.end = min(total, cursor.unit + cursor.chunk);
  int low = 0, high = a.batch;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (schedule.prefix[middle] <= cursor.unit) low = middle;
    else high = middle;
  }
  cursor.sequence = low;
  return cursor;
}

__device__ __forceinline__ bool nextItem(const Arguments& a, const Schedule& schedule, Cursor& cursor, Item& item) {
  if (cursor.unit >= cursor.end) return false;
  while (schedule.prefix[cursor.sequence + 1] <= cursor.unit) cursor.sequence++;
  const int start = schedule.prefix[cursor.sequence], stop = schedule.prefix[cursor.sequence + 1];
  item.sequence = cursor.sequence;
  item.length = schedule.lengths[cursor.sequence];
  if (a.splitTiles > 0) {
    item.split = cursor.unit - start;
    item.splits = stop - start;
    item.firstTile = item.split * a.splitTiles;
    item.endTile = min(item.firstTile + a.splitTiles, max(1, (item.length + TILE - 1) / TILE));
    cursor.unit++;
    return true;
  }
  const int end = min(cursor.end, stop), chunkStart = cursor.group * cursor.chunk;
  const int firstGroup = start >= chunkStart ? cursor.group : divide(start, cursor.chunk);
  const int lastGroup = stop <= chunkStart + cursor.chunk ? cursor.group : divide(stop - 1, cursor.chunk);
  item.split = cursor.group - firstGroup;
  item.splits = lastGroup - firstGroup + 1;
  item.firstTile = cursor.unit - start;
  item.endTile = end - start;
  cursor.unit = end;
  return true;
}

/** Tokens of the sequence that query row `row` sees. */
__device__ __forceinline__ int visibleTokens(const Arguments& a, const Item& item, int row) {
  return a.causal ? min(item.length, item.length - a.sQ + 1 + divide(row, a.heads)) : item.length;
}

/** Zeros in a tile's latent values of rows from `from` on: memory past a sequence may hold NaN, and 0 · NaN is NaN. */
__device__ __forceinline__ void clearRows(uint32_t tile, int boxes, int from, int thread) {
  const int chunks = (TILE - from) * 8;
  for (int i = thread; i < chunks * boxes; i += 128) {
    storeShared16(tile + i / chunks * BOX_BYTES + from * 128 + i % chunks * 16, make_uint4(0, 0, 0, 0));
  }
}

/** Weighted sum of partial results that share a maximum. */
struct Merged {
  float4 value;
  float top, sum;
};

/** `weight` times `value` added; a weight of 0 leaves out values that were never written. */
__device__ __forceinline__ void addWeighted(float4& total, float weight, const float4& value) {
  const bool counts = weight > 0.f;
  total.x += weight * (counts ? value.x : 0.f);
  total.y += weight * (counts ? value.y : 0.f);
  total.z += weight * (counts ? value.z : 0.f);
  total.w += weight * (counts ? value.w : 0.f);
}

/** Writes 4 columns of an output row, and its log-sum-exp where `withLse` says so. */
template <typename T>
__device__ __forceinline__ void writeRow(const Arguments& a, size_t row, int latent, int column, const Merged& m,
                                         bool withLse) {
  const float inverse = m.sum > 0.f ? 1.f / m.sum : 0.f;
  const float4 v = make_float4(m.value.x * inverse, m.value.y * inverse, m.value.z * inverse, m.value.w * inverse);
  const size_t at = row * latent + column;
  if (a.outFloat) {
    *reinterpret_cast<float4*>(static_cast<float*>(a.out) + at) = v;
  } else {
    *reinterpret_cast<uint2*>(static_cast<T*>(a.out) + at) = make_uint2(pack<T>(v.x, v.y), pack<T>(v.z, v.w));
  }
  if (withLse) a.lse[row] = m.sum > 0.f ? (m.top + log2f(m.sum)) * LN_2 : -NEGATIVE_INFINITY;
}

/** Scratch for the partial results of split `split`: ROWS × D_C values, and statistics of each rank's columns. */
template <int ROWS, int D_C> struct Partial {
  float* values;
  float2* stats;

  __device__ __forceinline__ Partial(const Arguments& a, const Place& place, int slot) {
    const size_t index = static_cast<size_t>(slot) * a.rowBlocks + place.rowBlock;
    values = a.scratch + index * ROWS * D_C;
    stats = reinterpret_cast<float2*>(a.scratch + a.statsOffset) + (index * place.size + place.rank) * ROWS;
  }
};

/** Splits whose loads are under way together. */
constexpr int MERGED_AT_ONCE = 8;

/** Adds the first `count` of some splits' results. */
__device__ __forceinline__ void addSplits(Merged& merged, const float2 (&stat)[MERGED_AT_ONCE],
                                          const float4 (&value)[MERGED_AT_ONCE], int count) {
  float top = merged.top;
#pragma unroll
  for (int s = 0; s < MERGED_AT_ONCE; s++) {
    top = fmaxf(top, s < count && stat[s].y > 0.f ? stat[s].x : NEGATIVE_INFINITY);
  }
  const float before = merged.sum > 0.f ? exp2Fast(merged.top - top) : 0.f;
  merged.top = top;
  merged.sum *= before;
  merged.value = make_float4(merged.value.x * before, merged.value.y * before, merged.value.z * before, merged.value.w * before);
#pragma unroll
  for (int s = 0; s < MERGED_AT_ONCE; s++) {
    const float weight = s < count && stat[s].y > 0.f ? exp2Fast(stat[s].x - top) : 0.f;
    merged.sum += weight * (weight > 0.f ? stat[s].y : 0.f);
    addWeighted(merged.value, weight, value[s]);
  }
}

/**
 * Reads the parameters once, by as many warps as there are lines of them: the first reading of each takes hundreds of cycles,
 * which then pass side by side.
 */
__device__ __forceinline__ void touchParameters(const Arguments& a, int warp) {
  if (warp == 1) asm volatile("" ::"l"(a.q), "l"(a.table));
  else if (warp == 2) asm volatile("" ::"l"(a.out), "l"(a.scratch));
  else if (warp == 3) asm volatile("" ::"r"(a.rows), "r"(a.sQ));
  else if (warp == 4) asm volatile("" ::"r"(a.groups), "r"(a.rowBlocks));
  else if (warp == 5) asm volatile("" ::"r"(a.leastTiles), "r"(a.outFloat));
  else if (warp == 6) asm volatile("" ::"f"(a.softmaxScale), "l"(a.lse));
}

/** Cache rows at which the pieces of a tile begin: one where pages hold 64 tokens or more, four where they hold 16. */
struct Pieces {
  int row[4];
  /** Pieces, and the logarithm of a piece's rows. */
  int count, shift;
};

/**
 * A warp's part of a block table: each lane has the page of one piece of a tile, and that of one 32 pieces on, so that no tile waits
 * for the table.
 */
struct Pages {
  const int* row;
  int base, held, next;

  /** `needed` is false where nothing is going to be taken. */
  __device__ __forceinline__ Pages(const Arguments& a, const Item& item, int tile, bool needed = true)
      : row(a.table + static_cast<size_t>(item.sequence) * a.tableWidth) {
    base = tile * (TILE >> pieceShiftOf(a));
    if (!needed) return;
    held = load(a, item, base);
    next = load(a, item, base + 32);
  }

  static __device__ __forceinline__ int pieceShiftOf(const Arguments& a) { return min(6, 31 - __clz(a.pageSize)); }

  __device__ __forceinline__ int load(const Arguments& a, const Item& item, int piece) const {
    const int token = (piece + static_cast<int>(threadIdx.x % 32)) << pieceShiftOf(a);
    return token < item.length ? __ldg(row + (token >> (31 - __clz(a.pageSize)))) : 0;
  }

  /** Where tile `tile`'s pieces lie; it may be at most 32 pieces past the last that was taken. */
  __device__ __forceinline__ Pieces peek(const Arguments& a, const Item& item, int tile) const {
    const int shift = pieceShiftOf(a), pageShift = 31 - __clz(a.pageSize), tokens = min(TILE, item.length - tile * TILE);
    Pieces pieces;
    pieces.shift = shift;
    pieces.count = (max(0, tokens) + (1 << shift) - 1) >> shift;
#pragma unroll
    for (int p = 0; p < 4; p++) {
      if (p << shift >= TILE) break;
      const int piece = tile * (TILE >> shift) + p, at = piece - base;
      const int page = __shfl_sync(~0u, at < 32 ? held : next, at & 31);
      pieces.row[p] = (page << pageShift) + ((piece << shift) & (a.pageSize - 1));
    }
    return pieces;
  }

  /** The same, once a tile; tiles come in their order. */
  __device__ __forceinline__ Pieces take(const Arguments& a, const Item& item, int tile) {
    const int first = tile * (TILE >> pieceShiftOf(a));
    while (first - base >= 32) {
      base += 32;
      held = next;
      next = load(a, item, base + 32);
    }
    return peek(a, item, tile);
  }
};

/** Writes two neighbouring values of out. */
template <typename T> __device__ __forceinline__ void writePair(const Arguments& a, size_t at, float x, float y) {
  if (a.outFloat) *reinterpret_cast<float2*>(static_cast<float*>(a.out) + at) = make_float2(x, y);
  else *reinterpret_cast<uint32_t*>(static_cast<T*>(a.out) + at) = pack<T>(x, y);
}

}  // namespace flashmla
