// mlaDecode with float32 queries over any cache, for Ampere and newer: everything in float32, for models and tests that want the
// arithmetic of the CPU. A block attends 8 query rows to one split of one sequence, in tiles of 32 tokens; splits and partial
// results are those of ../common/mla-partials.ts, merged by mla-decode.cu or mla-epilogue.cu.
#include "../common/elements.cuh"

namespace flashmla {

constexpr int ROWS = 8;
constexpr int TILE = 32;
constexpr int THREADS = 32 * ROWS;
constexpr int LEAST_SPLIT = 256;

enum Mode { FULL = 0, CAUSAL = 1, INDICES = 2 };

struct FloatArguments {
  const float* q;
  const uint8_t* cache;
  const int *table, *lengths, *batchCount;
  float* partials;
  int dtype, pageSize, pages, tableWidth, sQ, heads, splits, mode, statsOffset, counted;
  float softmaxScale;
};

/** One block's share: rows `first`…`first + rows` of a sequence, tokens `from`…`to` of its table row. */
struct Share {
  int sequence, split, first, rows, from, to, length;
  const int* tableRow;
};

__device__ __forceinline__ Share shareOf(const FloatArguments& a) {
  const bool sparse = a.mode == INDICES;
  const int span = sparse ? a.heads : a.sQ * a.heads;
  const int blocksOfSpan = (span + ROWS - 1) / ROWS;
  const int blocks = sparse ? blocksOfSpan * a.sQ : blocksOfSpan;
  const int block = blockIdx.x % blocks;
  Share share;
  share.split = blockIdx.x / blocks % a.splits;
  share.sequence = blockIdx.x / (blocks * a.splits);
  const int token = sparse ? block / blocksOfSpan : 0;
  const int inSpan = block % blocksOfSpan * ROWS;
  share.first = token * a.heads + inSpan;
  share.rows = min(ROWS, span - inSpan);
  if (a.counted && share.sequence >= *a.batchCount) {
    share.rows = 0;
    return share;
  }
  share.length = sparse ? a.tableWidth : max(0, min(a.lengths[share.sequence], a.tableWidth * a.pageSize));
  const int perSplit = max(LEAST_SPLIT, ((share.length + a.splits - 1) / a.splits + TILE - 1) / TILE * TILE);
  share.tableRow = a.table + static_cast<size_t>(sparse ? share.sequence * a.sQ + token : share.sequence) * a.tableWidth;
  const int lastRow = share.first + share.rows - 1;
  const int visible = a.mode == CAUSAL ? share.length - a.sQ + 1 + lastRow / a.heads : share.length;
  share.from = share.split * perSplit;
  share.to = min(share.from + perSplit, visible);
  return share;
}

/** Slot of the token at `position` of the table row, or -1 for none. */
__device__ __forceinline__ int slotOf(const FloatArguments& a, const Share& share, int position) {
  if (position >= share.to) return -1;
  if (a.mode != INDICES) return share.tableRow[position / a.pageSize] * a.pageSize + position % a.pageSize;
  const int slot = share.tableRow[position];
  return static_cast<unsigned>(slot) < static_cast<unsigned>(a.pages * a.pageSize) ? slot : -1;
}

template <int D_C, int D_R> struct FloatDecode {
  static constexpr int WIDTH = D_C + D_R;
  static constexpr int PITCH = WIDTH + 4;
  /** Latent channels a thread sums. */
  static constexpr int COLUMNS = D_C <= THREADS ? 1 : D_C / THREADS;

  /** Four values of an entry from `index` on, a multiple of 4. */
  static __device__ __forceinline__ float4 fourOf(const uint8_t* entry, int dtype, int index) {
    if (dtype == STORED_F32) return loadFour(reinterpret_cast<const float*>(entry) + index);
    if (dtype == STORED_F16) return loadFour(reinterpret_cast<const f16*>(entry) + index);
    if (dtype == STORED_BF16) return loadFour(reinterpret_cast<const bf16*>(entry) + index);
    if (index >= D_C) {
      // Entries of 128 + 64 values are multiples of 4 bytes alone.
      const uint32_t* words = reinterpret_cast<const uint32_t*>(entry + D_C + D_C / 32) + (index - D_C) / 2;
      const float2 low = unpack<bf16>(words[0]), high = unpack<bf16>(words[1]);
      return make_float4(low.x, low.y, high.x, high.y);
    }
    const uint32_t bits = *reinterpret_cast<const uint32_t*>(entry + index);
    const float scale = *reinterpret_cast<const float*>(entry + D_C + index / 128 * 4);
    return make_float4(widenE4m3(bits & 255) * scale, widenE4m3(bits >> 8 & 255) * scale,
                       widenE4m3(bits >> 16 & 255) * scale, widenE4m3(bits >> 24) * scale);
  }

  /** A warp widens 4 entries, the loads of one form under way together; absent tokens become zeros, and their slots -1. */
  template <int DTYPE>
  static __device__ __forceinline__ void loadTile(const FloatArguments& a, const Share& share, int position, float* keys,
                                                  int* slots) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const size_t bytes = latentEntryBytes(DTYPE, D_C, D_R);
    constexpr int LOADS = (WIDTH + 127) / 128;
    float4 value[TILE / ROWS][LOADS];
#pragma unroll
    for (int k = 0; k < TILE / ROWS; k++) {
      const int row = warp + k * ROWS, slot = slotOf(a, share, position + row);
      if (lane == 0) slots[row] = slot;
      const uint8_t* entry = a.cache + max(slot, 0) * bytes;
#pragma unroll
      for (int i = 0; i < LOADS; i++) {
        const int index = lane * 4 + i * 128;
        value[k][i] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (slot >= 0 && index < WIDTH) value[k][i] = fourOf(entry, DTYPE, index);
      }
    }
#pragma unroll
    for (int k = 0; k < TILE / ROWS; k++) {
#pragma unroll
      for (int i = 0; i < LOADS; i++) {
        const int index = lane * 4 + i * 128;
        if (index < WIDTH) storeFour(keys + (warp + k * ROWS) * PITCH + index, value[k][i]);
      }
    }
  }

  static __device__ __forceinline__ void loadTile(const FloatArguments& a, const Share& share, int position, float* keys,
                                                  int* slots) {
    if (a.dtype == STORED_BF16) loadTile<STORED_BF16>(a, share, position, keys, slots);
    else if (a.dtype == STORED_FP8) loadTile<STORED_FP8>(a, share, position, keys, slots);
    else if (a.dtype == STORED_F16) loadTile<STORED_F16>(a, share, position, keys, slots);
    else loadTile<STORED_F32>(a, share, position, keys, slots);
  }

  /** A warp scores 4 tokens against all rows. */
  static __device__ void score(const float* queries, const float* keys, float* scores) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float sums[4][ROWS] = {};
    for (int i = lane * 4; i < WIDTH; i += 128) {
      float4 key[4];
#pragma unroll
      for (int t = 0; t < 4; t++) key[t] = *reinterpret_cast<const float4*>(keys + (warp * 4 + t) * PITCH + i);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float4 q = *reinterpret_cast<const float4*>(queries + r * WIDTH + i);
#pragma unroll
        for (int t = 0; t < 4; t++) sums[t][r] += q.x * key[t].x + q.y * key[t].y + q.z * key[t].z + q.w * key[t].w;
      }
    }
#pragma unroll
    for (int t = 0; t < 4; t++) {
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float sum = sumOfWarp(sums[t][r]);
        if (lane == 0) scores[r * TILE + warp * 4 + t] = sum;
      }
    }
  }

  static __device__ void run(const FloatArguments& a) {
    extern __shared__ __align__(16) float shared[];
    float* const keys = shared;
    float* const queries = keys + TILE * PITCH;
    float* const scores = queries + ROWS * WIDTH;
    float* const weights = scores + ROWS * TILE;
    float* const rescale = weights + ROWS * TILE;
    int* const slots = reinterpret_cast<int*>(rescale + ROWS);
    const Share share = shareOf(a);
    if (share.rows == 0) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = threadIdx.x * COLUMNS;
    const size_t firstRow = static_cast<size_t>(share.sequence) * a.sQ * a.heads + share.first;
    if (share.from < share.to) {
      for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
        queries[i] = i / WIDTH < share.rows ? a.q[firstRow * WIDTH + i] * (a.softmaxScale * LOG2_E) : 0.f;
      }
    }
    // A warp's softmax is that of row `warp`.
    const int row = share.first + warp;
    const int visible = a.mode == CAUSAL ? share.length - a.sQ + 1 + row / a.heads : share.length;
    float top = NEGATIVE_INFINITY, sum = 0.f, out[ROWS][COLUMNS] = {};
    for (int position = share.from; position < share.to; position += TILE) {
      __syncthreads();
      loadTile(a, share, position, keys, slots);
      __syncthreads();
      score(queries, keys, scores);
      __syncthreads();
      const bool seen = slots[lane] >= 0 && position + lane < visible;
      const float value = seen ? scores[warp * TILE + lane] : NEGATIVE_INFINITY;
      const float newTop = fmaxf(top, maxOfWarp(value));
      const float factor = sum > 0.f ? exp2f(top - newTop) : 0.f;
      const float weight = seen ? exp2f(value - newTop) : 0.f;
      sum = sum * factor + sumOfWarp(weight);
      top = newTop;
      weights[lane * ROWS + warp] = weight;
      if (lane == 0) rescale[warp] = factor;
      __syncthreads();
      if (column < D_C) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) out[r][c] *= rescale[r];
        }
#pragma unroll 4
        for (int t = 0; t < TILE; t++) {
          float p[ROWS];
          *reinterpret_cast<float4*>(p) = *reinterpret_cast<const float4*>(weights + t * ROWS);
          *reinterpret_cast<float4*>(p + 4) = *reinterpret_cast<const float4*>(weights + t * ROWS + 4);
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) {
            const float v = keys[t * PITCH + column + c];
#pragma unroll
            for (int r = 0; r < ROWS; r++) out[r][c] += p[r] * v;
          }
        }
      }
    }
    const size_t rows = static_cast<size_t>(a.sQ) * a.heads;
    const size_t result = (static_cast<size_t>(share.sequence) * a.splits + share.split) * rows + share.first;
    if (column < D_C) {
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        if (r >= share.rows) break;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) a.partials[(result + r) * D_C + column + c] = out[r][c];
      }
    }
    if (lane == 0 && warp < share.rows) {
      reinterpret_cast<float2*>(a.partials + a.statsOffset)[result + warp] = make_float2(top, sum);
    }
  }
};

}  // namespace flashmla

#define PARTIAL(D_C, D_R)                                                                                              \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS) mlaDecodeFloat_##D_C##_##D_R(                        \
      const float* q, const uint8_t* cache, const int* table, const int* lengths, const int* batchCount,               \
      float* partials, int dtype, int pageSize, int pages, int tableWidth, int sQ, int heads, int splits, int mode,    \
      int statsOffset, int counted, float softmaxScale) {                                                              \
    flashmla::FloatDecode<D_C, D_R>::run({q, cache, table, lengths, batchCount, partials, dtype, pageSize, pages,      \
                                          tableWidth, sQ, heads, splits, mode, statsOffset, counted, softmaxScale});   \
  }

PARTIAL(128, 32)
PARTIAL(128, 64)
PARTIAL(256, 32)
PARTIAL(256, 64)
PARTIAL(512, 32)
PARTIAL(512, 64)
