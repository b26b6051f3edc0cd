// embedding: a block a row.
#include "../common/elements.cuh"

namespace flashmla {

template <typename T>
__device__ __forceinline__ void embed(const int* ids, const T* table, float* out, const int* rowCount, int vocab, int hidden, float scale) {
  letNextBegin();
  waitForEarlier();
  const int row = blockIdx.x;
  if (row >= *rowCount) return;
  const int id = ids[row];
  const bool isKnown = static_cast<unsigned>(id) < static_cast<unsigned>(vocab);
  const T* source = table + static_cast<size_t>(isKnown ? id : 0) * hidden;
  float* target = out + static_cast<size_t>(row) * hidden;
  for (int i = threadIdx.x * 4; i < hidden; i += blockDim.x * 4) {
    const float4 v = isKnown ? loadFour(source + i) : make_float4(0.f, 0.f, 0.f, 0.f);
    storeFour(target + i, make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale));
  }
}

}  // namespace flashmla

#define EMBEDDING(NAME, T)                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) embedding_##NAME(const int* ids, const T* table, float* out,       \
                                                                     const int* rowCount, int vocab, int hidden, int, float scale) { \
    flashmla::embed(ids, table, out, rowCount, vocab, hidden, scale);                                                  \
  }

EMBEDDING(bf16, flashmla::bf16)
EMBEDDING(f16, flashmla::f16)
EMBEDDING(f32, float)
