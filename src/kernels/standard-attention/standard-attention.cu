// standardAttention for Ampere and newer: scores, softmax and values as three launches over memory. LANES lanes share a token, as in
// attention-decode.cu.
#include "../common/key-value.cuh"

namespace flashmla {

constexpr int THREADS = 256;
/** Tokens of a block of the score stage; CHUNK in standard-attention.ts. */
constexpr int CHUNK = 256;
constexpr int AT_ONCE = 4;
/** Threads of a block of the value stage, and lanes (8 channels each) that share a token there. */
constexpr int VALUE_THREADS = 512;
constexpr int VALUE_LANES = 4;

/** Scores of a chunk of one sequence's head for ROWS rows, in base 2: workspace [batch, sQ · heads, offset]. */
template <typename T, int LANES, int ROWS> __device__ void score(const AttentionArguments& a) {
  const int rowBlocks = (a.span() + ROWS - 1) / ROWS;
  const int rowBlock = blockIdx.x % rowBlocks, kvHead = blockIdx.x / rowBlocks % a.kvHeads;
  const int chunk = blockIdx.x / (rowBlocks * a.kvHeads) % a.parts;
  const int sequence = blockIdx.x / (rowBlocks * a.kvHeads * a.parts);
  if (!a.isLive(sequence)) return;
  constexpr int GROUPS = THREADS / LANES;
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, channel = lane * 8;
  const bool inside = channel < a.width;
  const int length = a.lengthOf(sequence), first = rowBlock * ROWS, rows = min(ROWS, a.span() - first);
  const int from = chunk * CHUNK, to = min(from + CHUNK, length);
  float query[ROWS][8];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const float* source = a.q + a.rowOf(sequence, kvHead, first + min(r, rows - 1)) * a.width + channel;
#pragma unroll
    for (int i = 0; i < 8; i++) query[r][i] = inside ? source[i] * (a.softmaxScale * LOG2_E) : 0.f;
  }
  const T* keys = static_cast<const T*>(a.keys) + channel;
  for (int round = from; round < to; round += GROUPS * AT_ONCE) {
    Eight<T> key[AT_ONCE];
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
      const int token = round + k * GROUPS + group;
      key[k].clear();
      if (token < to && inside) key[k].load(keys + a.placeOf(sequence, kvHead, token));
    }
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
      float wide[8];
      key[k].widenTo(wide);
      const int token = round + k * GROUPS + group;
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float dot = 0.f;
#pragma unroll
        for (int i = 0; i < 8; i++) dot += query[r][i] * wide[i];
        dot = sumOfLanes<LANES>(dot);
        if (lane == 0 && token < to && r < rows) a.workspace[a.rowOf(sequence, kvHead, first + r) * a.offset + token] = dot;
      }
    }
  }
}

/** The sum or maximum of a block's values, in all threads. */
template <bool MAXIMUM> __device__ float reduceBlock(float value) {
  __shared__ float shared[32];
  value = MAXIMUM ? maxOfWarp(value) : sumOfWarp(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float total = shared[0];
  for (int w = 1; w < blockDim.x / 32; w++) total = MAXIMUM ? fmaxf(total, shared[w]) : total + shared[w];
  return total;
}

/** Probabilities of one row a block; zeros where it sees no token. */
__device__ void softmax(const AttentionArguments& a) {
  const int rows = a.sQ * a.heads, sequence = blockIdx.x / rows;
  if (!a.isLive(sequence)) return;
  const int length = a.lengthOf(sequence), end = a.endOf(length, blockIdx.x % rows / a.heads), begin = a.beginOf(end);
  float* scores = a.workspace + static_cast<size_t>(blockIdx.x) * a.offset;
  float top = NEGATIVE_INFINITY, sum = 0.f;
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) top = fmaxf(top, scores[i]);
  top = reduceBlock<true>(top);
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) sum += exp2f(scores[i] - top);
  sum = reduceBlock<false>(sum);
  const float inverse = sum > 0.f ? 1.f / sum : 0.f;
  for (int i = threadIdx.x; i < length; i += blockDim.x) {
    scores[i] = i >= begin && i < end ? exp2f(scores[i] - top) * inverse : 0.f;
  }
  if (threadIdx.x == 0) a.lse[blockIdx.x] = sum > 0.f ? (top + log2f(sum)) * LN_2 : -NEGATIVE_INFINITY;
}

/** Weighted values of 32 channels of one sequence's head for ROWS rows a block. */
template <typename T, int ROWS> __device__ void value(const AttentionArguments& a) {
  constexpr int GROUPS = VALUE_THREADS / VALUE_LANES;
  __shared__ float shared[VALUE_THREADS / 32][VALUE_LANES * 8];
  const int channelParts = (a.width + 8 * VALUE_LANES - 1) / (8 * VALUE_LANES);
  const int rowBlocks = (a.span() + ROWS - 1) / ROWS;
  const int part = blockIdx.x % channelParts, rowBlock = blockIdx.x / channelParts % rowBlocks;
  const int kvHead = blockIdx.x / (channelParts * rowBlocks) % a.kvHeads;
  const int sequence = blockIdx.x / (channelParts * rowBlocks * a.kvHeads);
  if (!a.isLive(sequence)) return;
  const int lane = threadIdx.x % VALUE_LANES, group = threadIdx.x / VALUE_LANES;
  const int channel = (part * VALUE_LANES + lane) * 8;
  const bool inside = channel < a.width;
  const int length = a.lengthOf(sequence), first = rowBlock * ROWS, rows = min(ROWS, a.span() - first);
  const int to = a.endOf(length, (first + rows - 1) / a.groupSize());
  const int from = a.beginOf(a.endOf(length, first / a.groupSize()));
  const float* probabilities[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    probabilities[r] = a.workspace + a.rowOf(sequence, kvHead, first + min(r, rows - 1)) * a.offset;
  }
  float out[ROWS][8] = {};
  const T* values = static_cast<const T*>(a.values) + channel;
  for (int round = from + group; round < to; round += GROUPS * AT_ONCE) {
    Eight<T> stored[AT_ONCE];
    float weight[AT_ONCE][ROWS];
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
      const int token = round + k * GROUPS;
      stored[k].clear();
      if (token < to && inside) stored[k].load(values + a.placeOf(sequence, kvHead, token));
#pragma unroll
      for (int r = 0; r < ROWS; r++) weight[k][r] = token < to ? probabilities[r][token] : 0.f;
    }
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
      float wide[8];
      stored[k].widenTo(wide);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int i = 0; i < 8; i++) out[r][i] += weight[k][r] * wide[i];
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    float mine[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float sum = out[0][i];
#pragma unroll
      for (int k = 1; k < ROWS; k++) sum = r == k ? out[k][i] : sum;
#pragma unroll
      for (int step = 16; step >= VALUE_LANES; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
      mine[i] = sum;
    }
    __syncthreads();
    if (threadIdx.x % 32 < VALUE_LANES) {
#pragma unroll
      for (int i = 0; i < 8; i++) shared[threadIdx.x / 32][lane * 8 + i] = mine[i];
    }
    __syncthreads();
    const int column = part * VALUE_LANES * 8 + threadIdx.x;
    if (threadIdx.x < VALUE_LANES * 8 && column < a.width) {
      float total = 0.f;
      for (int w = 0; w < VALUE_THREADS / 32; w++) total += shared[w][threadIdx.x];
      a.out[a.rowOf(sequence, kvHead, first + r) * a.width + column] = total;
    }
  }
}

}  // namespace flashmla

#define SCORE(name, T, LANES, ROWS)                                                                                    \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS) name(FLASHMLA_ATTENTION_PARAMETERS) {                \
    flashmla::score<T, LANES, ROWS>(FLASHMLA_ATTENTION_ARGUMENTS);                                                     \
  }

#define VALUE(name, T, ROWS)                                                                                           \
  extern "C" __global__ void __launch_bounds__(flashmla::VALUE_THREADS) name(FLASHMLA_ATTENTION_PARAMETERS) {          \
    flashmla::value<T, ROWS>(FLASHMLA_ATTENTION_ARGUMENTS);                                                            \
  }

#define ROWS_OF(stem, T, ROWS)                                                                                         \
  SCORE(standardAttentionScore_##stem##_2_##ROWS, T, 2, ROWS)                                                          \
  SCORE(standardAttentionScore_##stem##_4_##ROWS, T, 4, ROWS)                                                          \
  SCORE(standardAttentionScore_##stem##_8_##ROWS, T, 8, ROWS)                                                          \
  SCORE(standardAttentionScore_##stem##_16_##ROWS, T, 16, ROWS)                                                        \
  SCORE(standardAttentionScore_##stem##_32_##ROWS, T, 32, ROWS)                                                        \
  VALUE(standardAttentionValue_##stem##_##ROWS, T, ROWS)

#define ELEMENT(stem, T)                                                                                               \
  ROWS_OF(stem, T, 1)                                                                                                  \
  ROWS_OF(stem, T, 4)

ELEMENT(f32, float)
ELEMENT(f16, flashmla::f16)
ELEMENT(bf16, flashmla::bf16)

extern "C" __global__ void __launch_bounds__(256) standardAttentionSoftmax(FLASHMLA_ATTENTION_PARAMETERS) {
  flashmla::softmax(FLASHMLA_ATTENTION_ARGUMENTS);
}
