// How clusters of the few-rows kernel share sequences when there are no more sequences than clusters: every cluster gets one piece of
// one sequence, and no block more tiles than it has to. Computed from the lengths by one warp in registers.
#pragma once
#include "schedule.cuh"

namespace flashmla {

/** Sequences at most that are shared out evenly: four a lane. */
constexpr int MOST_EVEN = 128;

/** A piece of a sequence, and where its partial results lie: split s in slot firstSlot + s · slotStep, see {@link slotOfSplit}. */
struct Task : Item {
  int firstSlot, slotStep, last;

  /** Field by field: a copy of the whole would pass through the stack. */
  __device__ __forceinline__ void copy(const Task& other) {
    sequence = other.sequence;
    firstTile = other.firstTile;
    endTile = other.endTile;
    length = other.length;
    split = other.split;
    splits = other.splits;
    firstSlot = other.firstSlot;
    slotStep = other.slotStep;
    last = other.last;
  }
};

/** The slot of a split: with steps of 2, the first split of a sequence is its group's second partial result. */
__device__ __forceinline__ int slotOfSplit(const Task& task, int split) {
  return task.firstSlot + split * task.slotStep + (split == 0 ? task.slotStep - 1 : 0);
}

/** What a cluster gets: nothing, one task, or, when an even division would keep it waiting for a long sequence, an uneven walk. */
enum class Share { nothing, one, uneven };

__device__ __forceinline__ Share shareEvenly(const Arguments& a, const Place& place, Task& task) {
  const int lane = threadIdx.x % 32, most = a.tableWidth * a.pageSize;
  int length[4], tiles[4], clusters[4], total = 0;
#pragma unroll
  for (int j = 0; j < 4; j++) length[j] = j * 32 + lane < a.batch ? a.lengths[j * 32 + lane] : 0;
  const int batch = a.counted ? min(a.batch, *a.batchCount) : a.batch;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    length[j] = max(0, min(length[j], most));
    tiles[j] = j * 32 + lane < batch ? max(1, (length[j] + TILE - 1) / TILE) : 0;
    total += tiles[j];
  }
  total = __reduce_add_sync(~0u, total);
  if (total == 0) return Share::nothing;
  int perBlock = max(ceilDivide(a.leastTiles, place.size), ceilDivide(total, a.groups * place.size)), needed;
  const int limit = 2 * perBlock + 1;
  while (true) {
    const float span = static_cast<float>(perBlock * place.size), inverse = __fdividef(1.f, span);
    needed = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) needed += clusters[j] = static_cast<int>((static_cast<float>(tiles[j]) + span - 0.5f) * inverse);
    needed = __reduce_add_sync(~0u, needed);
    if (needed <= a.groups) break;
    perBlock += max(1, perBlock / 16);
    if (perBlock > limit) return Share::uneven;
  }
  if (place.group >= needed) return Share::nothing;
  int before = 0;
  bool found = false;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    if (!found && j * 32 < a.batch) {
      int sum = clusters[j];
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        if (a.batch == 1) break;
        const int other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
      }
      // One sequence: the other lanes have passed all there is.
      sum = a.batch == 1 ? needed : sum + before;
      const int passed = __popc(__ballot_sync(~0u, sum <= place.group));
      if (passed < 32) {
        found = true;
        task.sequence = j * 32 + passed;
        task.length = __shfl_sync(~0u, length[j], passed);
        task.splits = __shfl_sync(~0u, clusters[j], passed);
        task.firstSlot = __shfl_sync(~0u, sum - clusters[j], passed);
        task.split = place.group - task.firstSlot;
        task.firstTile = task.split * perBlock * place.size;
        task.endTile = min(__shfl_sync(~0u, tiles[j], passed), task.firstTile + perBlock * place.size);
      }
      before = __shfl_sync(~0u, sum, 31);
    }
  }
  task.slotStep = 1;
  task.last = 1;
  return Share::one;
}

}  // namespace flashmla
