// The many-rows kernel's merge of the parts of a sequence that several blocks had, by all of them, each a slice of it.
#pragma once
#include "many-rows.cuh"

namespace flashmla {

/**
 * Parts lie as the outputs' registers do: D_C / 32 steps, of which each has a half of the rows (r of every 16, or r + 8) and four strips of 8
 * columns in both halves of the width; 16 bytes a thread. `Shared` has walks and items for each warp, `start`, `rowBlock` and `slices`.
 */
template <typename T, int D_C, int ROWS> struct Merge {
  /** Threads of a half of the width, strips of 8 columns in it. */
  static constexpr int HALF = D_C / 2, STRIPS = HALF / 8, STEPS = STRIPS / 2;

  static __device__ __forceinline__ float baseOf(float top) { return top == NEGATIVE_INFINITY ? 0.f : top; }

  /** One row's sums over some parts, of four strips' two columns: values, and the maximum and sum that they belong to. */
  struct Row {
    float total[8], top, sum;

    __device__ __forceinline__ Row() : total{}, top(NEGATIVE_INFINITY), sum(0.f) {}

    /** Moves to a new maximum. */
    __device__ __forceinline__ void raise(float next) {
      const float before = exp2Fast(top - baseOf(next));
      sum *= before;
      top = next;
#pragma unroll
      for (int i = 0; i < 8; i++) total[i] *= before;
    }

    /** Adds some parts. */
    template <int AT_ONCE>
    __device__ __forceinline__ void add(const float3 (&stat)[AT_ONCE], const uint4 (&value)[AT_ONCE]) {
      float next = top;
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) next = fmaxf(next, stat[k].x);
      raise(next);
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        const float weight = exp2Fast(stat[k].x - baseOf(next)), scale = weight * stat[k].z;
        sum += weight * stat[k].y;
        const uint32_t pairs[4] = {value[k].x, value[k].y, value[k].z, value[k].w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&pairs[i]));
          total[2 * i] += scale * pair.x;
          total[2 * i + 1] += scale * pair.y;
        }
      }
    }

    /** Adds what the lane at that distance has of the same row and columns. */
    __device__ __forceinline__ void addLane(int distance) {
      const float otherTop = __shfl_xor_sync(~0u, top, distance);
      raise(fmaxf(top, otherTop));
      sum += __shfl_xor_sync(~0u, sum, distance);
#pragma unroll
      for (int i = 0; i < 8; i++) total[i] += __shfl_xor_sync(~0u, total[i], distance);
    }
  };

  /** What a thread merges: 16 bytes of every part. */
  struct Unit {
    /** Half of the width, step, place within it. */
    int group, step, at;

    __device__ __forceinline__ int row() const { return at / 32 * 16 + at % 32 / 4 + step % 2 * 8; }
    __device__ __forceinline__ int offset() const { return (group * STEPS + step) * 128 + at; }
  };

  /** The maximum, sum and scale of a unit's half row in AT_ONCE parts from `first` on, `stride` apart; those past the last count nothing. */
  template <int AT_ONCE>
  static __device__ __forceinline__ void loadStats(const Arguments& a, const Parts& parts, int splits, int first, int stride,
                                                   const Unit& unit, float3 (&stat)[AT_ONCE]) {
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
      const float4* all = partStats<ROWS>(a, parts.partOf(min(first + k * stride, splits - 1))) + unit.row();
      const float2 both = __ldcg(reinterpret_cast<const float2*>(all));
      stat[k] = make_float3(both.x, both.y, __ldcg(reinterpret_cast<const float*>(all) + 2 + unit.group));
    }
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
      if (first + k * stride >= splits) stat[k] = make_float3(NEGATIVE_INFINITY, 0.f, 0.f);
    }
  }

  template <int AT_ONCE>
  static __device__ __forceinline__ void loadValues(const Arguments& a, const Parts& parts, int splits, int first, int stride,
                                                    const Unit& unit, uint4 (&value)[AT_ONCE]) {
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
      value[k] = __ldcg(partValues<ROWS * D_C>(a, parts.partOf(min(first + k * stride, splits - 1))) + unit.offset());
    }
  }

  /** Writes strips `first`, `first` + `stride` … of a merged row. */
  static __device__ __forceinline__ void write(const Arguments& a, const Item& item, int rowBlock, const Unit& unit, const Row& row,
                                               int first, int stride) {
    const int ownRow = rowBlock * ROWS + unit.row();
    if (ownRow >= a.rows) return;
    const size_t target = static_cast<size_t>(item.sequence) * a.rows + ownRow;
    const float factor = row.sum > 0.f ? __fdividef(1.f, row.sum) : 0.f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i % stride != first) continue;
      const size_t column = unit.group * HALF + (unit.step / 2 * 4 + i) * 8 + unit.at % 4 * 2;
      writePair<T>(a, target * D_C + column, row.total[2 * i] * factor, row.total[2 * i + 1] * factor);
    }
    if (unit.step < 2 && unit.group == 0 && unit.at % 4 == 0 && first == 0) {
      a.lse[target] = row.sum > 0.f ? (row.top + log2f(row.sum)) * LN_2 : -NEGATIVE_INFINITY;
    }
  }

  /** Merges PAIRS pairs of steps from step `first` on, a unit of each a thread, four parts at a time. */
  template <int PAIRS>
  static __device__ __forceinline__ void mergePairs(const Arguments& a, const Item& item, int rowBlock, const Parts& parts, int first) {
    constexpr int PARTS = 4, UNITS = 2 * PAIRS;
    const int group = threadIdx.x / 128, at = threadIdx.x % 128;
    Row rows[UNITS];
    for (int split = 0; split < item.splits; split += PARTS) {
      // All loads of a round are under way before the first is used: one latency, not one for each split.
      uint4 value[UNITS][PARTS];
      float3 stat[2][PARTS];
#pragma unroll
      for (int j = 0; j < UNITS; j++) loadValues(a, parts, item.splits, split, 1, Unit{group, first + j, at}, value[j]);
      // Every other step has the same rows.
#pragma unroll
      for (int j = 0; j < 2; j++) loadStats(a, parts, item.splits, split, 1, Unit{group, first + j, at}, stat[j]);
#pragma unroll
      for (int j = 0; j < UNITS; j++) rows[j].add(stat[j % 2], value[j]);
    }
#pragma unroll
    for (int j = 0; j < UNITS; j++) write(a, item, rowBlock, Unit{group, first + j, at}, rows[j], 0, 1);
  }

  /** Merges the `slice`th of STEPS · LANES slices: LANES neighbouring lanes have a unit together, each every LANESth part. */
  template <int LANES>
  static __device__ __forceinline__ void mergeUnits(const Arguments& a, const Item& item, int rowBlock, const Parts& parts, int slice) {
    const int own = threadIdx.x % LANES, place = slice * (CONSUMERS / LANES) + threadIdx.x / LANES;
    const Unit unit = {place / 128 % 2, place / 256, place % 128};
    Row row;
    for (int split = 0; split < item.splits; split += MERGED_AT_ONCE * LANES) {
      float3 stat[MERGED_AT_ONCE];
      uint4 value[MERGED_AT_ONCE];
      loadValues(a, parts, item.splits, split + own, LANES, unit, value);
      loadStats(a, parts, item.splits, split + own, LANES, unit, stat);
      row.add(stat, value);
    }
#pragma unroll
    for (int distance = 1; distance < LANES; distance *= 2) row.addLane(distance);
    write(a, item, rowBlock, unit, row, own, LANES);
  }

  /** How many slices a merge of so many parts has: at most one for each of them. */
  static __device__ __forceinline__ int slicesOf(int splits) {
    if (splits >= 4 * STEPS) return 4 * STEPS;
    if (splits >= 2 * STEPS) return 2 * STEPS;
    return splits >= STEPS ? STEPS : min(splits, STEPS / 2);
  }

  static __device__ __forceinline__ void mergeSlice(const Arguments& a, const Item& item, int rowBlock, const Parts& parts, int slice,
                                                    int slices) {
    if (slices == 4 * STEPS) return mergeUnits<4>(a, item, rowBlock, parts, slice);
    if (slices == 2 * STEPS) return mergeUnits<2>(a, item, rowBlock, parts, slice);
    if (slices == STEPS) return mergeUnits<1>(a, item, rowBlock, parts, slice);
    const int end = (slice + 1) * (STEPS / 2) / slices;
    int pair = slice * (STEPS / 2) / slices;
    for (; pair + 1 < end; pair += 2) mergePairs<2>(a, item, rowBlock, parts, pair * 2);
    if (pair < end) mergePairs<1>(a, item, rowBlock, parts, pair * 2);
  }

  /** The merges of all sequences that this block has parts of; after all of its items, so that nothing waits for others before. */
  template <typename Shared> static __device__ __forceinline__ void all(const Arguments& a, Shared& shared) {
    // All parts are announced before the first merge, so that no merge waits for another block's.
    if (shared.start.shares == 0) return;
    const int warp = uniform(threadIdx.x / 32);
    Walk& walk = shared.walks[warp];
    Stretch& item = shared.items[warp];
    meet(ALL_CONSUMERS, CONSUMERS);
    if (threadIdx.x == 0) {
      fenceDevice();
      for (walk = shared.start; nextStretch(a, walk, item);) {
        if (item.splits > 1) Sharing::arrive(a, shared.rowBlock, item.sequence);
      }
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) walk = shared.start;
    while (takeStretch(a, walk, item)) {
      if (item.splits == 1) continue;
      const int slices = slicesOf(item.splits), own = item.split < slices ? item.split : -1;
      const Parts parts(a, walk, item, shared.rowBlock);
      Sharing(a, shared.rowBlock, item, own, slices, shared.slices).await();
      const int bits = min(slices, Sharing::BITS), each = slices / bits;
      for (unsigned mine = shared.slices; mine != 0; mine &= mine - 1) {
        const int bit = __ffs(mine) - 1;
        // Its own one alone, or all of a bit, where they were left to it.
        const bool isOwn = bit == Sharing::OWN;
        for (int slice = isOwn ? own : bit * each; slice < (isOwn ? own + 1 : (bit + 1) * each); slice++) {
          mergeSlice(a, item, shared.rowBlock, parts, slice, slices);
        }
      }
      // The next merge's slices may be told once all have seen this one's.
      meet(ALL_CONSUMERS, CONSUMERS);
    }
  }
};

}  // namespace flashmla
