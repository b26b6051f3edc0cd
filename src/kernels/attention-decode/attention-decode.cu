// attentionDecode for Ampere and newer: flash attention of few query rows over a paged cache of keys and values, bound by reading it.
// A block takes one split of one sequence's head for up to ROWS query rows. LANES lanes share a token (8 channels each), and every
// such group runs an online softmax of its own over every GROUPS-th token, 4 tokens at a time; they are merged at the end.
#include "../common/key-value.cuh"

namespace flashmla {

constexpr int THREADS = 128;
constexpr int LEAST_SPLIT = 256;
/** Tokens whose keys and values are under way together. */
constexpr int AT_ONCE = 4;

template <typename T, int LANES, int ROWS> struct FlashDecode {
  static constexpr int GROUPS = THREADS / LANES;

  /** Maximum (base 2), sum and weighted values of one row, as one lane has them. */
  struct State {
    float top, sum, out[8];
  };

  static __device__ __forceinline__ void add(State& state, const State& other) {
    const float top = fmaxf(state.top, other.top);
    const float mine = state.sum > 0.f ? exp2Fast(state.top - top) : 0.f;
    const float its = other.sum > 0.f ? exp2Fast(other.top - top) : 0.f;
    state.sum = state.sum * mine + other.sum * its;
    state.top = top;
#pragma unroll
    for (int i = 0; i < 8; i++) state.out[i] = state.out[i] * mine + other.out[i] * its;
  }

  static __device__ void run(const AttentionArguments& a) {
    const int rowBlocks = (a.span() + ROWS - 1) / ROWS;
    const int rowBlock = blockIdx.x % rowBlocks, kvHead = blockIdx.x / rowBlocks % a.kvHeads;
    const int split = blockIdx.x / (rowBlocks * a.kvHeads) % a.parts;
    const int sequence = blockIdx.x / (rowBlocks * a.kvHeads * a.parts);
    if (!a.isLive(sequence)) return;
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, channel = lane * 8;
    const bool inside = channel < a.width;
    const int length = a.lengthOf(sequence), first = rowBlock * ROWS, rows = min(ROWS, a.span() - first);
    const int lowest = a.beginOf(a.endOf(length, 0)), highest = a.endOf(length, a.sQ - 1);
    const int perSplit = max(LEAST_SPLIT, (highest - lowest + a.parts - 1) / a.parts);
    const int from = lowest + split * perSplit, to = min(from + perSplit, highest);
    float query[ROWS][8];
    int begin[ROWS], end[ROWS];
    State state[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int row = first + min(r, rows - 1);
      end[r] = r < rows ? a.endOf(length, row / a.groupSize()) : 0;
      begin[r] = a.beginOf(end[r]);
      const float* source = a.q + a.rowOf(sequence, kvHead, row) * a.width + channel;
#pragma unroll
      for (int i = 0; i < 8; i++) query[r][i] = inside ? source[i] * (a.softmaxScale * LOG2_E) : 0.f;
      state[r].top = NEGATIVE_INFINITY;
      state[r].sum = 0.f;
#pragma unroll
      for (int i = 0; i < 8; i++) state[r].out[i] = 0.f;
    }
    const T* keys = static_cast<const T*>(a.keys) + channel;
    const T* values = static_cast<const T*>(a.values) + channel;
    // All lanes of a warp make the same number of rounds: they share sums by shuffles.
    for (int round = from; round < to; round += GROUPS * AT_ONCE) {
      Eight<T> key[AT_ONCE], value[AT_ONCE];
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        const int token = round + k * GROUPS + group;
        key[k].clear();
        value[k].clear();
        if (token < to && inside) {
          const size_t place = a.placeOf(sequence, kvHead, token);
          key[k].load(keys + place);
          value[k].load(values + place);
        }
      }
      float scores[ROWS][AT_ONCE];
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
          scores[r][k] = token < to && token >= begin[r] && token < end[r] ? dot : NEGATIVE_INFINITY;
        }
      }
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float top = state[r].top;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) top = fmaxf(top, scores[r][k]);
        const float factor = state[r].sum > 0.f ? exp2Fast(state[r].top - top) : 0.f;
        state[r].top = top;
        state[r].sum *= factor;
#pragma unroll
        for (int i = 0; i < 8; i++) state[r].out[i] *= factor;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
          scores[r][k] = scores[r][k] == NEGATIVE_INFINITY ? 0.f : exp2Fast(scores[r][k] - top);
          state[r].sum += scores[r][k];
        }
      }
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        float wide[8];
        value[k].widenTo(wide);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
          for (int i = 0; i < 8; i++) state[r].out[i] += scores[r][k] * wide[i];
        }
      }
    }
    finish(a, sequence, split, kvHead, first, rows, state);
  }

  /** Merges the groups of a warp by shuffles, the warps through shared memory, and writes the split's result. */
  static __device__ void finish(const AttentionArguments& a, int sequence, int split, int kvHead, int first, int rows,
                                State (&state)[ROWS]) {
    __shared__ State shared[THREADS / 32][LANES];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = lane * 8;
    float2* stats = reinterpret_cast<float2*>(a.workspace + a.offset);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int step = 16; step >= LANES; step /= 2) {
        State other;
        other.top = __shfl_xor_sync(~0u, state[r].top, step);
        other.sum = __shfl_xor_sync(~0u, state[r].sum, step);
#pragma unroll
        for (int i = 0; i < 8; i++) other.out[i] = __shfl_xor_sync(~0u, state[r].out[i], step);
        add(state[r], other);
      }
      if (lane < LANES) shared[warp][lane] = state[r];
      __syncthreads();
      if (warp == 0 && lane < LANES && r < rows) {
        State total = shared[0][lane];
        for (int w = 1; w < THREADS / 32; w++) add(total, shared[w][lane]);
        const size_t rowsAll = static_cast<size_t>(a.sQ) * a.heads;
        const size_t row = a.rowOf(sequence, kvHead, first + r) - sequence * rowsAll;
        const size_t result = (static_cast<size_t>(sequence) * a.parts + split) * rowsAll + row;
        if (channel < a.width) {
          float* target = a.workspace + result * a.width + channel;
          storeFour(target, make_float4(total.out[0], total.out[1], total.out[2], total.out[3]));
          storeFour(target + 4, make_float4(total.out[4], total.out[5], total.out[6], total.out[7]));
        }
        if (lane == 0) stats[result] = make_float2(total.top, total.sum);
      }
      __syncthreads();
    }
  }
};

/** Merges the splits of one query row a block. */
__device__ void mergeRow(const AttentionArguments& a) {
  const int rows = a.sQ * a.heads, sequence = blockIdx.x / rows;
  if (!a.isLive(sequence)) return;
  const size_t result = static_cast<size_t>(sequence) * a.parts * rows + blockIdx.x % rows;
  const float2* stats = reinterpret_cast<const float2*>(a.workspace + a.offset) + result;
  float top = NEGATIVE_INFINITY, sum = 0.f;
  for (int s = 0; s < a.parts; s++) {
    if (stats[s * rows].y > 0.f) top = fmaxf(top, stats[s * rows].x);
  }
  for (int s = 0; s < a.parts; s++) {
    const float2 stat = stats[s * rows];
    if (stat.y > 0.f) sum += stat.y * exp2f(stat.x - top);
  }
  const float inverse = sum > 0.f ? 1.f / sum : 0.f;
  for (int column = threadIdx.x; column < a.width; column += blockDim.x) {
    float value = 0.f;
    for (int s = 0; s < a.parts; s++) {
      const float2 stat = stats[s * rows];
      if (stat.y > 0.f) value += exp2f(stat.x - top) * inverse * a.workspace[(result + s * rows) * a.width + column];
    }
    a.out[static_cast<size_t>(blockIdx.x) * a.width + column] = value;
  }
  if (threadIdx.x == 0) a.lse[blockIdx.x] = sum > 0.f ? (top + log2f(sum)) * LN_2 : -NEGATIVE_INFINITY;
}

}  // namespace flashmla

#define PARTIAL(name, T, LANES, ROWS)                                                                                  \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS) name(FLASHMLA_ATTENTION_PARAMETERS) {                \
    flashmla::FlashDecode<T, LANES, ROWS>::run(FLASHMLA_ATTENTION_ARGUMENTS);                                          \
  }

#define WIDTHS(stem, T, ROWS)                                                                                          \
  PARTIAL(stem##_2_##ROWS, T, 2, ROWS)                                                                                 \
  PARTIAL(stem##_4_##ROWS, T, 4, ROWS)                                                                                 \
  PARTIAL(stem##_8_##ROWS, T, 8, ROWS)                                                                                 \
  PARTIAL(stem##_16_##ROWS, T, 16, ROWS)                                                                               \
  PARTIAL(stem##_32_##ROWS, T, 32, ROWS)

#define ELEMENT(stem, T)                                                                                               \
  WIDTHS(stem, T, 1)                                                                                                   \
  WIDTHS(stem, T, 4)

ELEMENT(attentionDecodePartial_f32, float)
ELEMENT(attentionDecodePartial_f16, flashmla::f16)
ELEMENT(attentionDecodePartial_bf16, flashmla::bf16)

extern "C" __global__ void __launch_bounds__(256) attentionDecodeMerge(FLASHMLA_ATTENTION_PARAMETERS) {
  flashmla::mergeRow(FLASHMLA_ATTENTION_ARGUMENTS);
}
