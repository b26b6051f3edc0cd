// Random data for benchmarks, and what the memory and the tensor cores of a Hopper GPU reach at most.
#include "../kernels/common/sm90.cuh"

namespace flashmla {

__device__ __forceinline__ uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

/** Nearly normal: the sum of four uniform bytes, centred; standard deviation 1. */
__device__ __forceinline__ float nearlyNormal(uint32_t bits) {
  const int sum = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24);
  return (sum - 510) * (1.f / 147.8f);
}

}  // namespace flashmla

/** bf16 pairs of random numbers times `scale`; `pairs` of them. */
extern "C" __global__ void benchFill(uint32_t* target, unsigned pairs, int seed, float scale) {
  using namespace flashmla;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < pairs; i += gridDim.x * blockDim.x) {
    const uint32_t a = mix(2 * i + seed * 0x9e3779b9u), b = mix(2 * i + 1 + seed * 0x9e3779b9u);
    target[i] = pack<bf16>(nearlyNormal(a) * scale, nearlyNormal(b) * scale);
  }
}

/** Reads `vectors` 16-byte vectors once. */
extern "C" __global__ void __launch_bounds__(512) benchRead(const uint4* source, uint32_t* sink, unsigned vectors) {
  uint32_t sum = 0;
  const unsigned stride = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += stride * 8) {
    uint4 v[8];
#pragma unroll
    for (int k = 0; k < 8; k++) v[k] = i + k * stride < vectors ? __ldcs(source + i + k * stride) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int k = 0; k < 8; k++) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (sum == 0x12345678u) *sink = sum;
}

/** Two warpgroups a block multiply random operands in shared memory, 64 × 256 × 16 a step, `steps` times. */
extern "C" __global__ void __launch_bounds__(256, 1) benchTensor(uint32_t* sink, int steps) {
  using namespace flashmla;
  extern __shared__ __align__(1024) uint8_t memory[];
  const uint32_t base = sharedAddress(memory);
  uint32_t* words = reinterpret_cast<uint32_t*>(memory);
  for (int i = threadIdx.x; i < 6 * BOX_BYTES / 4; i += 256) {
    words[i] = pack<bf16>(nearlyNormal(mix(2 * i)), nearlyNormal(mix(2 * i + 1)));
  }
  fenceForAsync();
  __syncthreads();
  const uint32_t a = base + uniform(threadIdx.x / 128) * BOX_BYTES, b = base + 2 * BOX_BYTES;
  float d[128] = {};
  for (int step = 0; step < steps; step += 4) {
    pin(d);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) Wgmma<bf16, 256, 0, 1>::run(d, describe(a + k * 32), describe(b + k * 2048, BOX_BYTES));
    warpgroupCommit();
    warpgroupWait<0>();
  }
  pin(d);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 128; i++) sum += d[i];
  if (sum == 0.12345f) *sink = 1;
}
