// Values as they are stored, and the latent cache's entries, for kernels that compute in float32.
#pragma once
#include <cuda_fp8.h>
#include "mma.cuh"
#include "overlap.cuh"

namespace flashmla {

/** Codes of ./latent-cache.ts and ./key-value-cache.ts. */
enum Stored { STORED_F32 = 0, STORED_F16 = 1, STORED_BF16 = 2, STORED_FP8 = 3 };

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(f16 x) { return __half2float(x); }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ f16 narrow<f16>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return __float2bfloat16_rn(x); }

/** The two 16-bit values of a word. */
template <typename T> __device__ __forceinline__ float2 unpack(uint32_t pair);
template <> __device__ __forceinline__ float2 unpack<bf16>(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
template <> __device__ __forceinline__ float2 unpack<f16>(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

/** Two values at `source`, which is aligned to two of them. */
__device__ __forceinline__ float2 loadPair(const float* source) { return *reinterpret_cast<const float2*>(source); }
template <typename T> __device__ __forceinline__ float2 loadPair(const T* source) {
  return unpack<T>(*reinterpret_cast<const uint32_t*>(source));
}

/** Four values at `source`, which is aligned to four of them. */
__device__ __forceinline__ float4 loadFour(const float* source) { return *reinterpret_cast<const float4*>(source); }
template <typename T> __device__ __forceinline__ float4 loadFour(const T* source) {
  const uint2 words = *reinterpret_cast<const uint2*>(source);
  const float2 low = unpack<T>(words.x), high = unpack<T>(words.y);
  return make_float4(low.x, low.y, high.x, high.y);
}

/** Stores four values at `target`, which is aligned to four of them. */
__device__ __forceinline__ void storeFour(float* target, float4 v) { *reinterpret_cast<float4*>(target) = v; }
template <typename T> __device__ __forceinline__ void storeFour(T* target, float4 v) {
  *reinterpret_cast<uint2*>(target) = make_uint2(pack<T>(v.x, v.y), pack<T>(v.z, v.w));
}

/** Value `index` of an array of `dtype` (never fp8). */
__device__ __forceinline__ float loadStored(const void* base, int dtype, size_t index) {
  if (dtype == STORED_F32) return static_cast<const float*>(base)[index];
  if (dtype == STORED_F16) return widen(static_cast<const f16*>(base)[index]);
  return widen(static_cast<const bf16*>(base)[index]);
}

__device__ __forceinline__ void storeStored(void* base, int dtype, size_t index, float value) {
  if (dtype == STORED_F32) static_cast<float*>(base)[index] = value;
  else if (dtype == STORED_F16) static_cast<f16*>(base)[index] = narrow<f16>(value);
  else static_cast<bf16*>(base)[index] = narrow<bf16>(value);
}

__device__ __forceinline__ float widenE4m3(uint8_t bits) {
  const __half_raw raw = __nv_cvt_fp8_to_halfraw(bits, __NV_E4M3);
  return __half2float(raw);
}

/** Bytes of an entry of ./latent-cache.ts. */
__device__ __forceinline__ size_t latentEntryBytes(int dtype, int latent, int rope) {
  if (dtype == STORED_FP8) return latent + latent / 32 + 2 * rope;
  return static_cast<size_t>(latent + rope) * (dtype == STORED_F32 ? 4 : 2);
}

/** Value `index` of the entry at `entry`: latent ones, then rotary ones. fp8: e4m3, a float32 scale for 128 of them, bf16. */
__device__ __forceinline__ float loadEntry(const uint8_t* entry, int dtype, int latent, int index) {
  if (dtype != STORED_FP8) return loadStored(entry, dtype, index);
  if (index < latent) return widenE4m3(entry[index]) * *reinterpret_cast<const float*>(entry + latent + index / 128 * 4);
  return widen(reinterpret_cast<const bf16*>(entry + latent + latent / 32)[index - latent]);
}

template <typename T> __device__ __forceinline__ T sumOfWarp(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

template <typename T> __device__ __forceinline__ T maxOfWarp(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmax(value, __shfl_xor_sync(~0u, value, step));
  return value;
}

/** 16 bytes that nothing writes while the kernel runs, loaded where the program says so: before {@link waitForEarlier} if it does. */
__device__ __forceinline__ uint4 loadConstant16(const void* source) {
  uint4 v;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(source));
  return v;
}

}  // namespace flashmla
