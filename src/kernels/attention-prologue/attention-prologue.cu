// attentionPrologue for Ampere and newer: a block takes one token.
#include "../common/elements.cuh"

extern "C" __global__ void __launch_bounds__(256)
    attentionPrologue(const float* qkv, const int* positions, const float* rotary, const int* slots, void* keys,
                      void* values, float* qOut, const int* rowCount, int heads, int kvHeads, int width, int dtype,
                      int pageSize, int cacheRows) {
  const int row = blockIdx.x, half = width / 2, slot = slots[row];
  if (row >= *rowCount) return;
  const bool appends = static_cast<unsigned>(slot) < static_cast<unsigned>(cacheRows);
  const float* source = qkv + static_cast<size_t>(row) * (heads + 2 * kvHeads) * width;
  const float* table = rotary + static_cast<size_t>(positions[row]) * width;
  for (int i = threadIdx.x; i < (heads + kvHeads) * half; i += blockDim.x) {
    const int head = i / half, pair = i % half;
    const bool isKey = head >= heads;
    if (isKey && !appends) continue;
    const float a = source[head * width + pair], b = source[head * width + pair + half];
    const float cosine = table[pair], sine = table[pair + half];
    const float turned[2] = {a * cosine - b * sine, b * cosine + a * sine};
    for (int k = 0; k < 2; k++) {
      const int column = pair + k * half;
      if (!isKey) {
        qOut[(static_cast<size_t>(row) * heads + head) * width + column] = turned[k];
        continue;
      }
      const size_t place = (static_cast<size_t>(slot / pageSize) * kvHeads + head - heads) * pageSize + slot % pageSize;
      flashmla::storeStored(keys, dtype, place * width + column, turned[k]);
    }
  }
  if (!appends) return;
  for (int i = threadIdx.x; i < kvHeads * width; i += blockDim.x) {
    const int head = i / width, column = i % width;
    const size_t place = (static_cast<size_t>(slot / pageSize) * kvHeads + head) * pageSize + slot % pageSize;
    flashmla::storeStored(values, dtype, place * width + column, source[(heads + kvHeads + head) * width + column]);
  }
}
