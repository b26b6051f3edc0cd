// expert-routing of one row in float64 by the first warp of a block; its scores and the values to choose by lie in shared memory.
#pragma once
#include "../common/elements.cuh"

namespace flashmla {

struct Best {
  double value;
  int index;
};

/** The largest value of a warp's lanes, the lowest index among equals; NaN and index -1 are none. */
__device__ __forceinline__ Best bestOfWarp(Best best) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const double value = __shfl_xor_sync(~0u, best.value, step);
    const int index = __shfl_xor_sync(~0u, best.index, step);
    const bool isBetter = index >= 0 && (best.index < 0 || value > best.value || (value == best.value && index < best.index));
    if (isBetter) best = {value, index};
  }
  return best;
}

/** The index of the largest of `count` values, 0 when all are NaN; that one becomes NaN. */
__device__ __forceinline__ int takeBest(double* values, int count) {
  Best best{0., -1};
  for (int i = threadIdx.x; i < count; i += 32) {
    const double value = values[i];
    if (!isnan(value) && (best.index < 0 || value > best.value)) best = {value, i};
  }
  const int index = max(bestOfWarp(best).index, 0);
  __syncwarp();
  if (threadIdx.x == 0) values[index] = nan("");
  __syncwarp();
  return index;
}

/** The largest value of a group, or the sum of its largest two. */
__device__ __forceinline__ double groupValue(const double* values, int size, bool summed) {
  double first = -INFINITY, second = -INFINITY;
  for (int i = 0; i < size; i++) {
    const double value = values[i];
    if (value > first) second = first, first = value;
    else if (value > second) second = value;
  }
  return summed && size > 1 ? first + second : first;
}

__device__ __forceinline__ void score(const float* logits, double* scores, int count, bool isSigmoid) {
  if (isSigmoid) {
    for (int i = threadIdx.x; i < count; i += 32) scores[i] = 1. / (1. + exp(-static_cast<double>(logits[i])));
    return;
  }
  double largest = -INFINITY, sum = 0.;
  for (int i = threadIdx.x; i < count; i += 32) largest = fmax(largest, static_cast<double>(logits[i]));
  largest = maxOfWarp(largest);
  for (int i = threadIdx.x; i < count; i += 32) {
    scores[i] = exp(static_cast<double>(logits[i]) - largest);
    sum += scores[i];
  }
  sum = sumOfWarp(sum);
  for (int i = threadIdx.x; i < count; i += 32) scores[i] /= sum;
}

/** Values of experts outside the best groups become −∞. */
__device__ __forceinline__ void keepBestGroups(double* values, int count, int groups, int kept, bool summed, double* groupValues) {
  const int size = count / groups;
  for (int g = threadIdx.x; g < groups; g += 32) groupValues[g] = groupValue(values + g * size, size, summed);
  __syncwarp();
  for (int i = 0; i < kept; i++) takeBest(groupValues, groups);
  for (int i = threadIdx.x; i < count; i += 32) {
    if (!isnan(groupValues[i / size])) values[i] = -INFINITY;
  }
  __syncwarp();
}

/** How a router scores and chooses; expert-routing.ts has the codes. */
struct Router {
  int experts, perToken, scoring, selection, groups, groupsPerToken, normalise;
  float scale;
};

/** The experts of one row and their weights. `bias` may be null; `scores` has room for 2 · experts + groups values. */
__device__ __forceinline__ void routeRow(const Router& r, const float* logits, const float* bias, int* ids, float* weights, double* scores) {
  double* values = scores + r.experts;
  score(logits, scores, r.experts, r.scoring != 0);
  __syncwarp();
  for (int i = threadIdx.x; i < r.experts; i += 32) values[i] = scores[i] + (bias ? static_cast<double>(bias[i]) : 0.);
  __syncwarp();
  if (r.selection != 0) keepBestGroups(values, r.experts, r.groups, r.groupsPerToken, r.selection > 1, values + r.experts);
  double sum = 0.;
  for (int i = 0; i < r.perToken; i++) {
    const int expert = takeBest(values, r.experts);
    sum += scores[expert];
    if (threadIdx.x == 0) ids[i] = expert;
  }
  __syncwarp();
  const double divisor = r.normalise ? sum + 1e-20 : 1.;
  for (int i = threadIdx.x; i < r.perToken; i += 32) {
    weights[i] = static_cast<float>(scores[ids[i]] / divisor * static_cast<double>(r.scale));
  }
}

}  // namespace flashmla
