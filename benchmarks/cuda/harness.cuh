// What the harnesses share: a check of every call's status, made-up values, a reading kernel, and the median time of a graph's replays.
#pragma once
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define CHECK(call)                                                    \
  do {                                                                 \
    const int status = static_cast<int>(call);                         \
    if (status != 0) {                                                 \
      printf("line %d: %s failed with %d\n", __LINE__, #call, status); \
      exit(1);                                                         \
    }                                                                  \
  } while (0)

__device__ inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

/** The i-th value of a stream near the normal distribution: the sum of four random bytes. */
__device__ inline float normal(size_t i, uint32_t seed) {
  const uint32_t bits = mix(static_cast<uint32_t>(i) ^ mix(static_cast<uint32_t>(i >> 32) + seed));
  return (static_cast<int>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)) - 510) * (1.f / 147.8f);
}

template <typename T> __global__ void fill(T* target, size_t count, uint32_t seed, float scale) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count; i += gridDim.x * static_cast<size_t>(blockDim.x)) {
    target[i] = static_cast<T>(normal(i, seed) * scale);
  }
}

/** Reads `count` times 16 bytes, eight loads a thread under way: the read ceiling. */
static __global__ void readAll(const uint4* from, size_t count, uint32_t* out) {
  uint32_t sum = 0;
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = i + j * stride < count ? __ldcs(from + i + j * stride) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 12345) *out = sum;
}

/** Median milliseconds of `rounds` replays after `warming` that do not count. */
inline double medianReplay(cudaGraphExec_t graph, cudaStream_t stream, int warming, int rounds) {
  cudaEvent_t start, end;
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int round = -warming; round < rounds; round++) {
    CHECK(cudaEventRecord(start, stream));
    CHECK(cudaGraphLaunch(graph, stream));
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaEventSynchronize(end));
    float ms;
    CHECK(cudaEventElapsedTime(&ms, start, end));
    if (round >= 0) times.push_back(ms);
  }
  CHECK(cudaEventDestroy(start));
  CHECK(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}
