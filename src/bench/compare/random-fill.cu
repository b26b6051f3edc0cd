// Random weights, activations and cache entries for `bench compare`: the fills of random-fill.as.ts.
#include <cstdint>

namespace flashmla {

__device__ __forceinline__ uint32_t hash(uint32_t x) {
  x *= 0x9e3779b1u;
  x ^= x >> 15;
  x *= 0x85ebca77u;
  return x ^ x >> 13;
}

__device__ __forceinline__ float uniform(uint32_t index, float limit) {
  return static_cast<float>(static_cast<int32_t>(hash(index))) * limit;
}

/** The upper half of a float32: bf16 by truncation. */
__device__ __forceinline__ uint32_t bf16Bits(float value) { return __float_as_uint(value) >> 16; }

}  // namespace flashmla

/**
 * A block fills a chunk of `chunkBytes` bytes, 16 a thread and turn; forms: 0 f32, 1 bf16, 2 e4m3 bytes without a NaN. `limit` is that
 * of the values.
 */
extern "C" __global__ void __launch_bounds__(256)
    benchRandomFill(uint4* target, int chunkBytes, int vectors, int form, int seed, float limit) {
  using namespace flashmla;
  const int chunk = chunkBytes / 16;
  const long long start = static_cast<long long>(blockIdx.x) * chunk;
  const float scaled = limit * 4.656612873077393e-10f;  // 2^-31
  for (int i = threadIdx.x; i < chunk && start + i < vectors; i += blockDim.x) {
    const uint32_t index = static_cast<uint32_t>(8 * (start + i)) + seed;
    uint32_t words[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (form == 0) {
        words[k] = __float_as_uint(uniform(index + k, scaled));
      } else if (form == 1) {
        words[k] = bf16Bits(uniform(index + 2 * k, scaled)) | bf16Bits(uniform(index + 2 * k + 1, scaled)) << 16;
      } else {
        words[k] = hash(index + k) & 0xb7b7b7b7u;  // Magnitudes under 1, so that a scale of 1 keeps scores small.
      }
    }
    target[start + i] = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

/** Makes fp8 cache entries of random bytes whole: scales of 1, then rotary values under 1. A block an entry. */
extern "C" __global__ void __launch_bounds__(128) benchFp8Entries(uint8_t* cache, int latentWidth, int ropeWidth) {
  const int scales = latentWidth / 128;
  const long long size = latentWidth + 4 * scales + 2 * ropeWidth;
  uint8_t* entry = cache + blockIdx.x * size + latentWidth;
  for (int i = threadIdx.x; i < scales; i += blockDim.x) reinterpret_cast<float*>(entry)[i] = 1.f;
  uint16_t* rotary = reinterpret_cast<uint16_t*>(entry + 4 * scales);
  for (int i = threadIdx.x; i < ropeWidth; i += blockDim.x) rotary[i] = 0x3e00 | (rotary[i] & 0x7f);
}
