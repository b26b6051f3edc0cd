// expert-routing in float64: a warp a row.
#include "expert-routing.cuh"

extern "C" __global__ void __launch_bounds__(32)
    expertRouting(const float* logits, const float* bias, int* ids, float* weights, const int* rowCount, int experts, int perToken,
                  int scoring, int selection, int groups, int groupsPerToken, int normalise, float scale, int hasBias) {
  using namespace flashmla;
  extern __shared__ double scores[];
  letNextBegin();
  waitForEarlier();
  const size_t row = blockIdx.x;
  if (blockIdx.x >= *rowCount) return;
  const Router router{experts, perToken, scoring, selection, groups, groupsPerToken, normalise, scale};
  routeRow(router, logits + row * experts, hasBias ? bias : nullptr, ids + row * perToken, weights + row * perToken, scores);
}
