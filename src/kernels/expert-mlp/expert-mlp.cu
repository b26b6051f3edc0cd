// expert-mlp. Few rows: a block takes one (token, choice) pair, so only the chosen experts' weights are read and nothing is sorted;
// the down projection runs through a row's pairs one after the other and adds them up where they lie, weighted. Many rows: pairs
// are sorted by expert into units of at most 16, whose weights are read once a unit.
#include "../common/streamed-products.cuh"

namespace flashmla {

using f32 = float;

/** The stacked gates and ups of all experts. */
template <typename W> struct GateUpWeights {
  const W *gate, *up;
  int inputs, outputs, expertRows;
  __device__ __forceinline__ const W* row(int expert, int output, bool isUp, int step) const {
    if (output >= outputs) return nullptr;
    return (isUp ? up : gate) + (static_cast<size_t>(expert) * expertRows + output) * inputs + step * STEP;
  }
};

__device__ __forceinline__ float gated(float gate, float up) { return gate / (1.f + expf(-gate)) * up; }

/** silu(gate · x) · (up · x) · weight of single pairs. */
template <typename W> struct PairGateUpTask {
  static constexpr bool EARLY = false;
  GateUpWeights<W> w;
  const float *x, *normWeight, *expertWeights;
  const int *ids, *rowCount;
  float* out;
  int experts, perToken, outputTiles;
  float epsilon;
  int pairs = 0;

  __device__ __forceinline__ void begin() { pairs = *rowCount * perToken; }
  __device__ __forceinline__ int tiles() const { return pairs * outputTiles; }
  __device__ __forceinline__ int steps() const { return (w.inputs + STEP - 1) / STEP; }
  __device__ __forceinline__ int left(int step) const { return w.inputs - step * STEP; }
  __device__ __forceinline__ bool aligned() const { return true; }
  __device__ __forceinline__ const W* anyWeights() const { return w.gate; }
  __device__ __forceinline__ const W* weights(int tile, int step, int part, int output) const {
    const int expert = ids[tile / outputTiles];
    if (static_cast<unsigned>(expert) >= static_cast<unsigned>(experts)) return nullptr;
    return w.row(expert, tile % outputTiles * 16 + output, part == 1, step);
  }
  __device__ __forceinline__ const float* activations(int tile, int step, int column) const {
    return column == 0 ? x + static_cast<size_t>(tile / outputTiles / perToken) * w.inputs + step * STEP : nullptr;
  }
  __device__ __forceinline__ const float* norm(int step) const { return normWeight ? normWeight + step * STEP : nullptr; }
  __device__ __forceinline__ void finish(int tile, const TileSums<2, 1>& sums) const {
    const int pair = tile / outputTiles, output = tile % outputTiles * 16 + threadIdx.x;
    if (threadIdx.x >= 16 || output >= w.outputs) return;
    const bool isKnown = static_cast<unsigned>(ids[pair]) < static_cast<unsigned>(experts);
    const float inverse = normWeight ? sums.inverseNorm(0, w.inputs, epsilon) : 1.f;
    const float g = sums.at(0, threadIdx.x) * inverse, u = sums.at(0, 16 + threadIdx.x) * inverse;
    const float value = gated(g, u) * expertWeights[pair];
    out[static_cast<size_t>(pair) * w.outputs + output] = isKnown ? value : 0.f;
  }
};

/** The down projections of a row's pairs, added up. */
template <typename W> struct RowDownTask {
  static constexpr bool EARLY = false;
  const float* x;
  const W* down;
  const int *ids, *rowCount;
  float* out;
  int inputs, outputs, experts, perToken, outputTiles, accumulates;
  float scale;
  int rows = 0;

  /** Whole rounds of the warps, so that none has two pairs in it; what is left over has no inputs. */
  __device__ __forceinline__ int stepsOfPair() const { return (inputs + STEP * WARPS - 1) / (STEP * WARPS) * WARPS; }
  __device__ __forceinline__ void begin() { rows = *rowCount; }
  __device__ __forceinline__ int tiles() const { return rows * outputTiles; }
  __device__ __forceinline__ int steps() const { return perToken * stepsOfPair(); }
  __device__ __forceinline__ int left(int step) const { return inputs - step % stepsOfPair() * STEP; }
  __device__ __forceinline__ bool aligned() const { return true; }
  __device__ __forceinline__ const W* anyWeights() const { return down; }
  __device__ __forceinline__ const W* weights(int tile, int step, int, int output) const {
    const int row = tile % outputTiles * 16 + output;
    const int expert = ids[tile / outputTiles * perToken + step / stepsOfPair()];
    if (row >= outputs || static_cast<unsigned>(expert) >= static_cast<unsigned>(experts)) return nullptr;
    return down + (static_cast<size_t>(expert) * outputs + row) * inputs + step % stepsOfPair() * STEP;
  }
  __device__ __forceinline__ const float* activations(int tile, int step, int column) const {
    if (column > 0) return nullptr;
    const size_t pair = tile / outputTiles * perToken + step / stepsOfPair();
    return x + pair * inputs + step % stepsOfPair() * STEP;
  }
  __device__ __forceinline__ const float* norm(int) const { return nullptr; }
  __device__ __forceinline__ void finish(int tile, const TileSums<1, 1>& sums) const {
    const int output = tile % outputTiles * 16 + threadIdx.x;
    if (threadIdx.x >= 16 || output >= outputs) return;
    float* target = out + static_cast<size_t>(tile / outputTiles) * outputs + output;
    const float value = sums.at(0, threadIdx.x) * scale;
    *target = accumulates ? *target + value : value;
  }
};

/** What the sort leaves: how many units there are, the expert, the first pair and the number of each, and the pairs by expert. */
struct Plan {
  const int* memory;
  int most;
  __device__ __forceinline__ int units() const { return memory[0]; }
  __device__ __forceinline__ int expert(int unit) const { return memory[1 + unit]; }
  __device__ __forceinline__ int first(int unit) const { return memory[1 + most + unit]; }
  __device__ __forceinline__ int count(int unit) const { return memory[1 + 2 * most + unit]; }
  __device__ __forceinline__ int pair(int position) const { return memory[1 + 3 * most + position]; }
};

template <typename W> struct UnitGateUpTask {
  static constexpr bool EARLY = false;
  GateUpWeights<W> w;
  const float* x;
  Plan plan;
  float* out;
  int perToken, outputTiles;
  int units = 0;

  __device__ __forceinline__ void begin() { units = plan.units(); }
  __device__ __forceinline__ int tiles() const { return units * outputTiles; }
  __device__ __forceinline__ int steps() const { return (w.inputs + STEP - 1) / STEP; }
  __device__ __forceinline__ int left(int step) const { return w.inputs - step * STEP; }
  __device__ __forceinline__ bool aligned() const { return true; }
  __device__ __forceinline__ const W* anyWeights() const { return w.gate; }
  __device__ __forceinline__ const W* weights(int tile, int step, int part, int output) const {
    return w.row(plan.expert(tile / outputTiles), tile % outputTiles * 16 + output, part == 1, step);
  }
  __device__ __forceinline__ const float* activations(int tile, int step, int column) const {
    const int unit = tile / outputTiles;
    if (column >= plan.count(unit)) return nullptr;
    return x + static_cast<size_t>(plan.pair(plan.first(unit) + column) / perToken) * w.inputs + step * STEP;
  }
  __device__ __forceinline__ const float* norm(int) const { return nullptr; }
  __device__ __forceinline__ void finish(int tile, const TileSums<2, 2>& sums) const {
    const int unit = tile / outputTiles, columns = plan.count(unit);
    const int column = threadIdx.x / 16, output = tile % outputTiles * 16 + threadIdx.x % 16;
    if (column >= columns || output >= w.outputs) return;
    const float value = gated(sums.at(column, threadIdx.x % 16), sums.at(column, 16 + threadIdx.x % 16));
    out[static_cast<size_t>(plan.pair(plan.first(unit) + column)) * w.outputs + output] = value;
  }
};

template <typename W> struct UnitDownTask {
  static constexpr bool EARLY = false;
  const float* x;
  const W* down;
  Plan plan;
  float* out;
  int inputs, outputs, outputTiles;
  int units = 0;

  __device__ __forceinline__ void begin() { units = plan.units(); }
  __device__ __forceinline__ int tiles() const { return units * outputTiles; }
  __device__ __forceinline__ int steps() const { return (inputs + STEP - 1) / STEP; }
  __device__ __forceinline__ int left(int step) const { return inputs - step * STEP; }
  __device__ __forceinline__ bool aligned() const { return true; }
  __device__ __forceinline__ const W* anyWeights() const { return down; }
  __device__ __forceinline__ const W* weights(int tile, int step, int, int output) const {
    const int row = tile % outputTiles * 16 + output;
    if (row >= outputs) return nullptr;
    return down + (static_cast<size_t>(plan.expert(tile / outputTiles)) * outputs + row) * inputs + step * STEP;
  }
  __device__ __forceinline__ const float* activations(int tile, int step, int column) const {
    const int unit = tile / outputTiles;
    if (column >= plan.count(unit)) return nullptr;
    return x + static_cast<size_t>(plan.pair(plan.first(unit) + column)) * inputs + step * STEP;
  }
  __device__ __forceinline__ const float* norm(int) const { return nullptr; }
  __device__ __forceinline__ void finish(int tile, const TileSums<1, 2>& sums) const {
    const int unit = tile / outputTiles, columns = plan.count(unit);
    const int column = threadIdx.x / 16, output = tile % outputTiles * 16 + threadIdx.x % 16;
    if (column >= columns || output >= outputs) return;
    out[static_cast<size_t>(plan.pair(plan.first(unit) + column)) * outputs + output] = sums.at(column, threadIdx.x % 16);
  }
};

}  // namespace flashmla

/** Sorts pairs by expert and cuts them into units. One block; dynamic shared memory: 2 · experts + 1 words. */
extern "C" __global__ void __launch_bounds__(1024)
    expertMlpPlan(const int* ids, int* plan, const int* rowCount, int experts, int perToken, int most, int unitPairs) {
  using namespace flashmla;
  extern __shared__ int offsets[];
  letNextBegin();
  waitForEarlier();
  int* cursors = offsets + experts + 1;
  const int pairs = *rowCount * perToken;
  for (int i = threadIdx.x; i < experts; i += 1024) cursors[i] = 0;
  __syncthreads();
  for (int pair = threadIdx.x; pair < pairs; pair += 1024) {
    const int id = ids[pair];
    if (static_cast<unsigned>(id) < static_cast<unsigned>(experts)) atomicAdd(&cursors[id], 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int at = 0, unit = 0;
    for (int expert = 0; expert < experts; expert++) {
      const int count = cursors[expert];
      offsets[expert] = cursors[expert] = at;
      for (int first = 0; first < count; first += unitPairs, unit++) {
        plan[1 + unit] = expert;
        plan[1 + most + unit] = at + first;
        plan[1 + 2 * most + unit] = min(unitPairs, count - first);
      }
      at += count;
    }
    plan[0] = unit;
  }
  __syncthreads();
  for (int pair = threadIdx.x; pair < pairs; pair += 1024) {
    const int id = ids[pair];
    if (static_cast<unsigned>(id) >= static_cast<unsigned>(experts)) continue;
    plan[1 + 3 * most + atomicAdd(&cursors[id], 1)] = pair;
  }
}

/** out = or += scale · Σ weight · value over a row's pairs, in their order. A block a row. */
extern "C" __global__ void __launch_bounds__(256)
    expertMlpCombine(const float* values, const int* ids, const float* weights, float* out, const int* rowCount, int width,
                     int perToken, int experts, int accumulates, float scale) {
  using namespace flashmla;
  letNextBegin();
  waitForEarlier();
  const size_t row = blockIdx.x;
  if (blockIdx.x >= *rowCount) return;
  for (int i = threadIdx.x * 4; i < width; i += 1024) {
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int j = 0; j < perToken; j++) {
      const size_t pair = row * perToken + j;
      if (static_cast<unsigned>(ids[pair]) >= static_cast<unsigned>(experts)) continue;
      const float4 v = loadFour(values + pair * width + i);
      const float w = weights[pair];
      sum = make_float4(sum.x + w * v.x, sum.y + w * v.y, sum.z + w * v.z, sum.w + w * v.w);
    }
    float* target = out + row * width + i;
    const float4 before = accumulates ? loadFour(target) : make_float4(0.f, 0.f, 0.f, 0.f);
    storeFour(target, make_float4(before.x + scale * sum.x, before.y + scale * sum.y, before.z + scale * sum.z, before.w + scale * sum.w));
  }
}

#define EXPERTS(NAME, W)                                                                                                 \
  extern "C" __global__ void __launch_bounds__(flashmla::STREAM_THREADS, 2) expertMlpPairGateUp_##NAME(                                       \
      const float* x, const float* norm, const flashmla::W* gate, const flashmla::W* up, const int* ids,                 \
      const float* expertWeights, float* out, const int* rowCount, int inputs, int outputs, int experts, int perToken,   \
      int expertRows, int isNormed, float epsilon) {                                                                     \
    using namespace flashmla;                                                                                            \
    streamProducts<W, 2, 1>(PairGateUpTask<W>{{gate, up, inputs, outputs, expertRows}, x, isNormed ? norm : nullptr,     \
                                              expertWeights, ids, rowCount, out, experts, perToken, (outputs + 15) / 16, \
                                              epsilon});                                                                 \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(flashmla::STREAM_THREADS, 2) expertMlpRowDown_##NAME(                                          \
      const float* x, const flashmla::W* down, const int* ids, float* out, const int* rowCount, int inputs, int outputs,  \
      int experts, int perToken, int accumulates, float scale) {                                                         \
    using namespace flashmla;                                                                                            \
    streamProducts<W, 1, 1>(RowDownTask<W>{x, down, ids, rowCount, out, inputs, outputs, experts, perToken,              \
                                           (outputs + 15) / 16, accumulates, scale});                                    \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(flashmla::STREAM_THREADS, 1) expertMlpUnitGateUp_##NAME(                                       \
      const float* x, const flashmla::W* gate, const flashmla::W* up, const int* plan, float* out, int inputs, int outputs, \
      int perToken, int expertRows, int most) {                                                                          \
    using namespace flashmla;                                                                                            \
    streamProducts<W, 2, 2>(UnitGateUpTask<W>{{gate, up, inputs, outputs, expertRows}, x, {plan, most}, out, perToken,   \
                                              (outputs + 15) / 16});                                                     \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(flashmla::STREAM_THREADS, 1) expertMlpUnitDown_##NAME(                                         \
      const float* x, const flashmla::W* down, const int* plan, float* out, int inputs, int outputs, int most) {         \
    using namespace flashmla;                                                                                            \
    streamProducts<W, 1, 2>(UnitDownTask<W>{x, down, {plan, most}, out, inputs, outputs, (outputs + 15) / 16});          \
  }

EXPERTS(bf16, bf16)
EXPERTS(f16, f16)
EXPERTS(f32, f32)
