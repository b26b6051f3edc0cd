// Rotary pairs, and one token's entry appended to the cache: what all kernels of mlaPrologue share.
#pragma once
#include "elements.cuh"

namespace flashmla {

/** Channels of pair `pair`. */
__device__ __forceinline__ int2 channelsOf(int pair, int rope, int interleaved) {
  return interleaved ? make_int2(2 * pair, 2 * pair + 1) : make_int2(pair, pair + rope / 2);
}

/** The pair (a, b) turned by entry `pair` of a position's cosines, then sines. */
__device__ __forceinline__ float2 rotated(float a, float b, const float* table, int pair, int rope) {
  const float cosine = table[pair], sine = table[pair + rope / 2];
  return make_float2(a * cosine - b * sine, b * cosine + a * sine);
}

/** The fp8 entry of src/base/fp8-entry.ts; `entry` is complete. A warp takes a group of 128 values. */
__device__ void storeFp8(const float* entry, uint8_t* target, int latent, int rope) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int group = warp; group < latent / 128; group += blockDim.x / 32) {
    float values[4], largest = 0.f;
    for (int i = 0; i < 4; i++) {
      values[i] = entry[group * 128 + lane * 4 + i];
      largest = fmaxf(largest, fabsf(values[i]));
    }
    largest = maxOfWarp(largest);
    const int exponent = static_cast<int>((__float_as_uint(largest) + 0x1fffff) >> 23) - 8;
    const float scale = __uint_as_float(static_cast<uint32_t>(max(exponent, 1)) << 23);
    for (int i = 0; i < 4; i++) {
      target[group * 128 + lane * 4 + i] = __nv_cvt_float_to_fp8(values[i] / scale, __NV_SATFINITE, __NV_E4M3);
    }
    if (lane == 0) reinterpret_cast<float*>(target + latent)[group] = scale;
  }
  bf16* rotary = reinterpret_cast<bf16*>(target + latent + latent / 32);
  for (int i = threadIdx.x; i < rope; i += blockDim.x) rotary[i] = narrow<bf16>(entry[latent + i]);
}

/** Appends one token's entry a block: RMSNorm(latent) · weight, and the rotated key. Dynamic shared memory: an entry in float32. */
__device__ void append(const float* latents, const float* normWeight, const int* positions, const float* rotary,
                       const int* slots, uint8_t* cache, int row, int latent, int rope, float epsilon, int interleaved,
                       int dtype, int cacheRows) {
  extern __shared__ float entry[];
  __shared__ float sums[32];
  const int slot = slots[row];
  if (static_cast<unsigned>(slot) >= static_cast<unsigned>(cacheRows)) return;
  const float* source = latents + static_cast<size_t>(row) * (latent + rope);
  const float* table = rotary + static_cast<size_t>(positions[row]) * rope;
  float squares = 0.f;
  for (int i = threadIdx.x; i < latent; i += blockDim.x) {
    const float value = source[i];
    entry[i] = value;
    squares += value * value;
  }
  squares = sumOfWarp(squares);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
  __syncthreads();
  float total = 0.f;
  for (int w = 0; w < blockDim.x / 32; w++) total += sums[w];
  const float scale = 1.f / sqrtf(total / latent + epsilon);
  for (int i = threadIdx.x; i < latent; i += blockDim.x) entry[i] = entry[i] * scale * normWeight[i];
  for (int pair = threadIdx.x; pair < rope / 2; pair += blockDim.x) {
    const int2 at = channelsOf(pair, rope, interleaved);
    const float2 turned = rotated(source[latent + at.x], source[latent + at.y], table, pair, rope);
    entry[latent + at.x] = turned.x;
    entry[latent + at.y] = turned.y;
  }
  __syncthreads();
  uint8_t* target = cache + static_cast<size_t>(slot) * latentEntryBytes(dtype, latent, rope);
  if (dtype == STORED_FP8) storeFp8(entry, target, latent, rope);
  else {
    for (int i = threadIdx.x; i < latent + rope; i += blockDim.x) storeStored(target, dtype, i, entry[i]);
  }
}

}  // namespace flashmla
