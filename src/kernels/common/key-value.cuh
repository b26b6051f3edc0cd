// The paged cache of keys and values, [pages, kvHeads, pageSize, width], for kernels in which a few lanes share a token: each has 8 of
// its channels.
#pragma once
#include "elements.cuh"

namespace flashmla {

/** What `attentionDecode` and `standardAttention` launch with (./attention-record.ts). */
struct AttentionArguments {
  const float* q;
  const void *keys, *values;
  const int *table, *lengths, *batchCount;
  float *workspace, *out, *lse;
  int pageSize, tableWidth, sQ, heads, kvHeads, width, causal, window;
  float softmaxScale;
  int counted, parts, offset;

  __device__ __forceinline__ bool isLive(int sequence) const { return !counted || sequence < *batchCount; }
  __device__ __forceinline__ int lengthOf(int sequence) const { return max(0, min(lengths[sequence], tableWidth * pageSize)); }
  /** Query rows that share a head's keys: row r is token r / group, head kvHead · group + r % group. */
  __device__ __forceinline__ int groupSize() const { return heads / kvHeads; }
  __device__ __forceinline__ int span() const { return sQ * groupSize(); }
  /** Where row `r` of `kvHead` lies in [batch, sQ, heads]. */
  __device__ __forceinline__ size_t rowOf(int sequence, int kvHead, int r) const {
    return (static_cast<size_t>(sequence) * sQ + r / groupSize()) * heads + kvHead * groupSize() + r % groupSize();
  }
  /** One past the last token that query token `token` sees. */
  __device__ __forceinline__ int endOf(int length, int token) const {
    return max(0, causal ? length - sQ + 1 + token : length);
  }
  /** The first token that a row with that end sees. */
  __device__ __forceinline__ int beginOf(int end) const { return window > 0 ? max(0, end - window) : 0; }
  /** Elements before the row of `token` of `kvHead`. */
  __device__ __forceinline__ size_t placeOf(int sequence, int kvHead, int token) const {
    const int page = table[static_cast<size_t>(sequence) * tableWidth + token / pageSize];
    return ((static_cast<size_t>(page) * kvHeads + kvHead) * pageSize + token % pageSize) * width;
  }
};

/** Eight stored values as they are loaded, before they are widened. */
template <typename T> struct Eight {
  uint4 words;
  __device__ __forceinline__ void load(const T* source) { words = __ldg(reinterpret_cast<const uint4*>(source)); }
  __device__ __forceinline__ void clear() { words = make_uint4(0, 0, 0, 0); }
  __device__ __forceinline__ void widenTo(float (&v)[8]) const {
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 pair = unpack<T>(word[i]);
      v[2 * i] = pair.x;
      v[2 * i + 1] = pair.y;
    }
  }
};

template <> struct Eight<float> {
  float4 low, high;
  __device__ __forceinline__ void load(const float* source) {
    low = __ldg(reinterpret_cast<const float4*>(source));
    high = __ldg(reinterpret_cast<const float4*>(source) + 1);
  }
  __device__ __forceinline__ void clear() { low = high = make_float4(0.f, 0.f, 0.f, 0.f); }
  __device__ __forceinline__ void widenTo(float (&v)[8]) const {
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  }
};

/** The sum over the `LANES` lanes that share a token, in all of them. */
template <int LANES> __device__ __forceinline__ float sumOfLanes(float value) {
#pragma unroll
  for (int step = LANES / 2; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

#define FLASHMLA_ATTENTION_PARAMETERS                                                                                  \
  const float *q, const void *keys, const void *values, const int *table, const int *lengths, const int *batchCount,   \
      float *workspace, float *out, float *lse, int dtype, int pageSize, int tableWidth, int sQ, int heads,            \
      int kvHeads, int width, int rowBlock, int causal, int window, float softmaxScale, int counted, int parts,        \
      int offset

#define FLASHMLA_ATTENTION_ARGUMENTS                                                                                   \
  {q,     keys,  values, table,   lengths, batchCount, workspace, out,    lse,   pageSize, tableWidth,                 \
   sQ,    heads, kvHeads, width,  causal,  window,     softmaxScale, counted, parts, offset}

}  // namespace flashmla
