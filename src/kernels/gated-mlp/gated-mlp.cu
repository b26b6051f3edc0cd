// gated-mlp's first stage for few rows: gate and up stream side by side, and silu(gate) · up leaves.
#include "../common/streamed-products.cuh"

namespace flashmla {

using f32 = float;

template <typename W, int R, int NT> struct GateUpTask {
  static constexpr bool EARLY = true;
  static constexpr int OUTPUTS = R / 2 * 16;
  const float *x, *normWeight;
  const W *gate, *up;
  float* out;
  const int* rowCount;
  int inputs, outputs, rowBlocks;
  float epsilon;
  int rows = 0;

  __device__ __forceinline__ void begin() { rows = *rowCount; }
  __device__ __forceinline__ int tiles() const { return (outputs + OUTPUTS - 1) / OUTPUTS * rowBlocks; }
  __device__ __forceinline__ int steps() const { return (inputs + STEP - 1) / STEP; }
  __device__ __forceinline__ int left(int step) const { return inputs - step * STEP; }
  __device__ __forceinline__ bool aligned() const { return true; }
  __device__ __forceinline__ const W* anyWeights() const { return gate; }
  __device__ __forceinline__ const W* weights(int tile, int step, int part, int output) const {
    const int row = tile / rowBlocks * OUTPUTS + part % (R / 2) * 16 + output;
    const W* base = part < R / 2 ? gate : up;
    return row < outputs ? base + static_cast<size_t>(row) * inputs + step * STEP : nullptr;
  }
  __device__ __forceinline__ const float* activations(int tile, int step, int column) const {
    const int row = tile % rowBlocks * NT * 8 + column;
    return row < rows ? x + static_cast<size_t>(row) * inputs + step * STEP : nullptr;
  }
  __device__ __forceinline__ const float* norm(int step) const { return normWeight ? normWeight + step * STEP : nullptr; }

  __device__ __forceinline__ void finish(int tile, const TileSums<R, NT>& sums) const {
    const int firstRow = tile % rowBlocks * NT * 8, columns = min(NT * 8, rows - firstRow);
    for (int i = threadIdx.x; i < columns * OUTPUTS; i += WARPS * 32) {
      const int column = i / OUTPUTS, output = tile / rowBlocks * OUTPUTS + i % OUTPUTS;
      if (output >= outputs) continue;
      const float inverse = normWeight ? sums.inverseNorm(column, inputs, epsilon) : 1.f;
      const float g = sums.at(column, i % OUTPUTS) * inverse, u = sums.at(column, OUTPUTS + i % OUTPUTS) * inverse;
      out[static_cast<size_t>(firstRow + column) * outputs + output] = g / (1.f + expf(-g)) * u;
    }
  }
};

}  // namespace flashmla

#define GATE_UP(NAME, W, R, NT)                                                                                         \
  extern "C" __global__ void __launch_bounds__(flashmla::STREAM_THREADS, NT == 1 ? 2 : 1) gatedMlpGateUp_##NAME##_##R##_##NT(             \
      const float* x, const float* norm, const flashmla::W* gate, const flashmla::W* up, float* out, const int* rowCount, \
      int inputs, int outputs, int rowBlocks, int isNormed, float epsilon) {                                            \
    using namespace flashmla;                                                                                           \
    const GateUpTask<W, R, NT> task{x, isNormed ? norm : nullptr, gate, up, out, rowCount, inputs, outputs, rowBlocks, epsilon}; \
    streamProducts<W, R, NT>(task);                                                                                     \
  }

GATE_UP(bf16, bf16, 2, 1)
GATE_UP(bf16, bf16, 2, 2)
GATE_UP(f16, f16, 2, 1)
GATE_UP(f16, f16, 2, 2)
GATE_UP(f32, f32, 2, 1)
GATE_UP(f32, f32, 2, 2)

namespace flashmla {

/** silu(gate) · up of bf16 pairs, into the place of gate: rounded for the product that follows. */
__device__ __forceinline__ uint32_t gatedPair(uint32_t gate, uint32_t up) {
  const float2 g = unpack<bf16>(gate), u = unpack<bf16>(up);
  return pack<bf16>(g.x / (1.f + __expf(-g.x)) * u.x, g.y / (1.f + __expf(-g.y)) * u.y);
}

}  // namespace flashmla

/** gate = silu(gate) · up for `rows` · `eighths` vectors of 8 bf16 values, rows in use only. */
extern "C" __global__ void __launch_bounds__(256) gatedMlpCombine(uint4* gate, const uint4* up, const int* rowCount, int eighths) {
  using namespace flashmla;
  letNextBegin();
  waitForEarlier();
  const size_t count = static_cast<size_t>(*rowCount) * eighths;
  for (size_t i = blockIdx.x * 256 + threadIdx.x; i < count; i += gridDim.x * 256) {
    const uint4 g = gate[i], u = up[i];
    gate[i] = make_uint4(gatedPair(g.x, u.x), gatedPair(g.y, u.y), gatedPair(g.z, u.z), gatedPair(g.w, u.w));
  }
}
