// linear for few rows: one or two weights over the same rows of x, which may be normed on the way. The sum of squares that the norm
// needs comes with the products, since all of a row passes through the block.
#include "../common/streamed-products.cuh"

namespace flashmla {

/** One of the matrices that share x. */
template <typename W> struct Matrix {
  const W* weights;
  const float* bias;
  float* out;
  int outputs;
};

using f32 = float;

struct LinearArguments {
  const float *x, *norm;
  const int* rowCount;
  int inputs, xStride, rowBlocks, accumulates;
  float scale, epsilon;
};

template <typename W, int R, int NT> struct LinearTask {
  static constexpr bool EARLY = true;
  LinearArguments a;
  Matrix<W> first, second;
  int rows = 0;

  __device__ __forceinline__ int outputTiles(const Matrix<W>& m) const { return (m.outputs + R * 16 - 1) / (R * 16); }
  __device__ __forceinline__ void begin() { rows = *a.rowCount; }
  __device__ __forceinline__ int tiles() const { return (outputTiles(first) + outputTiles(second)) * a.rowBlocks; }
  __device__ __forceinline__ int steps() const { return (a.inputs + STEP - 1) / STEP; }
  __device__ __forceinline__ int left(int step) const { return a.inputs - step * STEP; }
  __device__ __forceinline__ bool aligned() const { return a.xStride % 4 == 0; }
  __device__ __forceinline__ const W* anyWeights() const { return first.weights; }
  __device__ __forceinline__ const W* weights(int tile, int step, int part, int output) const {
    int at = tile / a.rowBlocks;
    const bool isFirst = at < outputTiles(first);
    if (!isFirst) at -= outputTiles(first);
    const W* base = isFirst ? first.weights : second.weights;
    const int outputs = isFirst ? first.outputs : second.outputs;
    const int row = at * R * 16 + part * 16 + output;
    return row < outputs ? base + static_cast<size_t>(row) * a.inputs + step * STEP : nullptr;
  }
  __device__ __forceinline__ const float* activations(int tile, int step, int column) const {
    const int row = tile % a.rowBlocks * NT * 8 + column;
    return row < rows ? a.x + static_cast<size_t>(row) * a.xStride + step * STEP : nullptr;
  }
  __device__ __forceinline__ const float* norm(int step) const { return a.norm ? a.norm + step * STEP : nullptr; }

  __device__ __forceinline__ void finish(int tile, const TileSums<R, NT>& sums) const {
    int at = tile / a.rowBlocks;
    const bool isFirst = at < outputTiles(first);
    if (!isFirst) at -= outputTiles(first);
    const int outputs = isFirst ? first.outputs : second.outputs;
    const float* bias = isFirst ? first.bias : second.bias;
    float* target = isFirst ? first.out : second.out;
    const int firstRow = tile % a.rowBlocks * NT * 8, columns = min(NT * 8, rows - firstRow);
    for (int i = threadIdx.x; i < columns * R * 16; i += WARPS * 32) {
      const int column = i / (R * 16), output = at * R * 16 + i % (R * 16);
      if (output >= outputs) continue;
      float value = sums.at(column, i % (R * 16));
      if (a.norm) value *= sums.inverseNorm(column, a.inputs, a.epsilon);
      if (bias) value += bias[output];
      value = __fmul_rn(value, a.scale);
      float* out = target + static_cast<size_t>(firstRow + column) * outputs + output;
      *out = a.accumulates ? __fadd_rn(*out, value) : value;
    }
  }
};

}  // namespace flashmla

#define LINEAR(NAME, W, R, NT)                                                                                           \
  extern "C" __global__ void __launch_bounds__(flashmla::STREAM_THREADS, NT == 1 ? 2 : 1) linear_##NAME##_##R##_##NT(                      \
      const float* x, const float* norm, const int* rowCount, const flashmla::W* weight, const float* bias, float* out,  \
      const flashmla::W* weight2, float* out2, int inputs, int outputs, int outputs2, int xStride, int rowBlocks,        \
      int accumulates, int isNormed, int hasBias, float scale, float epsilon) {                                          \
    using namespace flashmla;                                                                                            \
    const LinearArguments a{x, isNormed ? norm : nullptr, rowCount, inputs, xStride, rowBlocks, accumulates, scale, epsilon}; \
    const LinearTask<W, R, NT> task{a, {weight, hasBias ? bias : nullptr, out, outputs}, {weight2, nullptr, out2, outputs2}}; \
    streamProducts<W, R, NT>(task);                                                                                      \
  }

#define LINEARS(NAME, W) LINEAR(NAME, W, 1, 1) LINEAR(NAME, W, 1, 2)
LINEARS(bf16, bf16)
LINEAR(bf16, bf16, 2, 1)
LINEAR(bf16, bf16, 2, 2)
LINEARS(f16, f16)
LINEARS(f32, f32)
