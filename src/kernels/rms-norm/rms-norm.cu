// rms-norm: a block a row, kept in registers between the two passes where it is short enough.
#include "../common/elements.cuh"

namespace flashmla {

constexpr int THREADS = 256;

template <typename T>
__device__ __forceinline__ void rmsNorm(const float* x, const float* weight, T* out, const int* rowCount, int width, float epsilon) {
  __shared__ float sums[THREADS / 32];
  letNextBegin();
  waitForEarlier();
  const int row = blockIdx.x;
  if (row >= *rowCount) return;
  const float* source = x + static_cast<size_t>(row) * width;
  T* target = out + static_cast<size_t>(row) * width;
  float squares = 0.f;
  for (int i = threadIdx.x * 4; i < width; i += THREADS * 4) {
    const float4 v = loadFour(source + i);
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  squares = sumOfWarp(squares);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
  __syncthreads();
  float sum = 0.f;
#pragma unroll
  for (int warp = 0; warp < THREADS / 32; warp++) sum += sums[warp];
  const float inverse = 1.f / sqrtf(sum / width + epsilon);
  for (int i = threadIdx.x * 4; i < width; i += THREADS * 4) {
    const float4 v = loadFour(source + i), w = loadFour(weight + i);
    storeFour(target + i, make_float4(v.x * inverse * w.x, v.y * inverse * w.y, v.z * inverse * w.z, v.w * inverse * w.w));
  }
}

}  // namespace flashmla

extern "C" __global__ void __launch_bounds__(256)
    rmsNorm_f32(const float* x, const float* weight, float* out, const int* rowCount, int width, float epsilon) {
  flashmla::rmsNorm(x, weight, out, rowCount, width, epsilon);
}

/** Rounded to bf16, for products on the tensor cores. */
extern "C" __global__ void __launch_bounds__(256)
    rmsNorm_bf16(const float* x, const float* weight, flashmla::bf16* out, const int* rowCount, int width, float epsilon) {
  flashmla::rmsNorm(x, weight, out, rowCount, width, epsilon);
}

/** Rows of x, `stride` floats apart, rounded to bf16. `width` is a multiple of 8. */
extern "C" __global__ void __launch_bounds__(256)
    roundRows(const float* x, flashmla::bf16* out, const int* rowCount, int width, int stride) {
  using namespace flashmla;
  letNextBegin();
  waitForEarlier();
  const size_t count = static_cast<size_t>(*rowCount) * (width / 4);
  for (size_t i = blockIdx.x * 256 + threadIdx.x; i < count; i += gridDim.x * 256) {
    const size_t row = i / (width / 4), at = i % (width / 4) * 4;
    const float* source = x + row * stride + at;
    const float4 v = stride % 4 == 0 ? loadFour(source) : make_float4(source[0], source[1], source[2], source[3]);
    storeFour(out + row * width + at, v);
  }
}
