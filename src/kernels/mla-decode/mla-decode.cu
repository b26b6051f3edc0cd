// mlaDecode for Ampere and newer: mma.sync, cp.async, two stages of 32 tokens. A block attends 16 query rows to one split
// of one sequence; its 4 warps share the scores (8 tokens each) and then the output (a quarter of the latent width each).
// Splits and partial results are those of the CPU kernel (../common/mla-partials.ts): a sequence's own length alone decides.
#include "../common/mma.cuh"

namespace flashmla {

constexpr int ROWS = 16;
constexpr int TILE = 32;
constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int LEAST_SPLIT = 256;
constexpr int SCORE_PITCH = TILE + 4;

enum Mode { FULL = 0, CAUSAL = 1, INDICES = 2 };

struct PartialArguments {
  const void *q, *cache;
  const int *table, *lengths, *batchCount;
  float* partials;
  int pageSize, pages, tableWidth, sQ, heads, splits, mode, statsOffset, counted;
  float softmaxScale;
};

/** One block's share: rows `first`…`first + rows` of a sequence, tokens `from`…`to` of its table row. */
struct Share {
  int sequence, split, first, rows, from, to, length;
  const int* tableRow;
};

__device__ __forceinline__ Share shareOf(const PartialArguments& a) {
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
  const int even = (share.length + a.splits - 1) / a.splits;
  const int perSplit = max(LEAST_SPLIT, (even + TILE - 1) / TILE * TILE);
  const int tableIndex = sparse ? share.sequence * a.sQ + token : share.sequence;
  share.tableRow = a.table + static_cast<size_t>(tableIndex) * a.tableWidth;
  const int lastRow = share.first + share.rows - 1;
  const int visible = a.mode == CAUSAL ? share.length - a.sQ + 1 + lastRow / a.heads : share.length;
  share.from = share.split * perSplit;
  share.to = min(share.from + perSplit, visible);
  return share;
}

/** Slot of the token at `position` of the table row, or -1 for none. */
__device__ __forceinline__ int slotOf(const PartialArguments& a, const Share& share, int position) {
  if (position >= share.to) return -1;
  if (a.mode != INDICES) return share.tableRow[position / a.pageSize] * a.pageSize + position % a.pageSize;
  const int slot = share.tableRow[position];
  return static_cast<unsigned>(slot) < static_cast<unsigned>(a.pages * a.pageSize) ? slot : -1;
}

template <typename T, int D_C, int D_R> struct Decode {
  static constexpr int WIDTH = D_C + D_R;
  /** An odd number of 16-byte units, so that the 8 rows of a matrix lie in different banks. */
  static constexpr int PITCH = WIDTH * 2 + 16;
  static constexpr int SHARED = (2 * TILE + ROWS) * PITCH + ROWS * SCORE_PITCH * 4 + 2 * TILE * 4;
  static constexpr int COLUMN_TILES = D_C / WARPS / 8;

  /** Starts the copy of the tile at `position`; absent tokens become zeros, and their slots -1. */
  static __device__ void loadTile(const PartialArguments& a, const Share& share, int position, uint32_t keys, int* slots) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int row = warp; row < TILE; row += WARPS) {
      const int slot = slotOf(a, share, position + row);
      if (lane == 0) slots[row] = slot;
      const T* source = static_cast<const T*>(a.cache) + static_cast<size_t>(max(slot, 0)) * WIDTH;
      for (int chunk = lane; chunk < WIDTH / 8; chunk += 32) {
        copyAsync16(keys + row * PITCH + chunk * 16, source + chunk * 8, slot >= 0);
      }
    }
    commitCopies();
  }

  static __device__ void loadQueries(const PartialArguments& a, const Share& share, uint32_t target) {
    const size_t row = static_cast<size_t>(share.sequence) * a.sQ * a.heads + share.first;
    const T* source = static_cast<const T*>(a.q) + row * WIDTH;
    for (int i = threadIdx.x; i < ROWS * (WIDTH / 8); i += THREADS) {
      const int r = i / (WIDTH / 8), chunk = i % (WIDTH / 8);
      const bool wanted = r < share.rows;
      copyAsync16(target + r * PITCH + chunk * 16, source + (wanted ? r : 0) * WIDTH + chunk * 8, wanted);
    }
  }

  /** Scores of this warp's 8 tokens against all rows, in base 2; -infinity where a row may not see a token. */
  static __device__ void score(const PartialArguments& a, const Share& share, int position, uint32_t queries,
                               uint32_t keys, const int* slots, float* scores) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t queryRow = queries + lane % 16 * PITCH + lane / 16 * 16;
    const uint32_t keyRow = keys + (warp * 8 + lane % 8) * PITCH + lane / 8 * 16;
    float s[4] = {};
    for (int k = 0; k < WIDTH; k += 32) {
      uint32_t key[4], query[4];
      loadMatrices(key, keyRow + k * 2);
      loadMatrices(query, queryRow + k * 2);
      multiply<T>(s, query, key[0], key[1]);
      loadMatrices(query, queryRow + k * 2 + 32);
      multiply<T>(s, query, key[2], key[3]);
    }
    for (int i = 0; i < 4; i++) {
      const int row = lane / 4 + i / 2 * 8, token = warp * 8 + lane % 4 * 2 + i % 2;
      const int hidden = a.mode == CAUSAL ? a.sQ - 1 - (share.first + row) / a.heads : 0;
      const bool seen = slots[token] >= 0 && position + token < share.length - hidden;
      scores[row * SCORE_PITCH + token] = seen ? s[i] * a.softmaxScale * LOG2_E : NEGATIVE_INFINITY;
    }
  }

  /** Softmax of the tile, the same in every warp; returns the probabilities as the first operand of the second product. */
  static __device__ void softmax(const float* scores, float (&top)[2], float (&sum)[2], float (&rescale)[2],
                                 uint32_t (&p)[2][4]) {
    const int lane = threadIdx.x % 32;
    for (int half = 0; half < 2; half++) {
      const float* row = scores + (lane / 4 + half * 8) * SCORE_PITCH + lane % 4 * 2;
      float2 s[4];
      float most = top[half];
      for (int i = 0; i < 4; i++) {
        s[i] = *reinterpret_cast<const float2*>(row + i * 8);
        most = fmaxf(most, fmaxf(s[i].x, s[i].y));
      }
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
      const float base = most == NEGATIVE_INFINITY ? 0.f : most;
      rescale[half] = exp2Fast(top[half] - base);
      top[half] = most;
      sum[half] *= rescale[half];
      for (int i = 0; i < 4; i++) {
        const float x = exp2Fast(s[i].x - base), y = exp2Fast(s[i].y - base);
        sum[half] += x + y;
        p[i / 2][i % 2 * 2 + half] = pack<T>(x, y);
      }
    }
  }

  /** out += p · values, for this warp's quarter of the latent width. */
  static __device__ void accumulate(uint32_t keys, const uint32_t (&p)[2][4], float (&out)[COLUMN_TILES][4]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t start = keys + lane % 16 * PITCH + (warp * (D_C / WARPS) + lane / 16 * 8) * 2;
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int c = 0; c < COLUMN_TILES; c += 2) {
        uint32_t v[4];
        loadMatricesTransposed(v, start + half * 16 * PITCH + c * 16);
        multiply<T>(out[c], p[half], v[0], v[1]);
        multiply<T>(out[c + 1], p[half], v[2], v[3]);
      }
    }
  }

  static __device__ void store(const PartialArguments& a, const Share& share, const float (&top)[2],
                               const float (&sum)[2], const float (&out)[COLUMN_TILES][4]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int half = 0; half < 2; half++) {
      const int row = lane / 4 + half * 8;
      if (row >= share.rows) continue;
      const size_t result = (static_cast<size_t>(share.sequence) * a.splits + share.split) * a.sQ * a.heads + share.first + row;
      float* target = a.partials + result * D_C + warp * (D_C / WARPS) + lane % 4 * 2;
#pragma unroll
      for (int c = 0; c < COLUMN_TILES; c++) {
        *reinterpret_cast<float2*>(target + c * 8) = make_float2(out[c][half * 2], out[c][half * 2 + 1]);
      }
      float2* stats = reinterpret_cast<float2*>(a.partials + a.statsOffset) + result;
      if (warp == 0 && lane % 4 == 0) *stats = make_float2(top[half], sum[half]);
    }
  }

  static __device__ void run(const PartialArguments& a) {
    extern __shared__ __align__(128) uint8_t shared[];
    const uint32_t keys = sharedAddress(shared), queries = keys + 2 * TILE * PITCH;
    float* scores = reinterpret_cast<float*>(shared + (2 * TILE + ROWS) * PITCH);
    int* slots = reinterpret_cast<int*>(scores + ROWS * SCORE_PITCH);
    const Share share = shareOf(a);
    if (share.rows == 0) return;
    float top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {}, out[COLUMN_TILES][4] = {};
    if (share.from < share.to) {
      loadQueries(a, share, queries);
      loadTile(a, share, share.from, keys, slots);
    }
    for (int position = share.from, stage = 0; position < share.to; position += TILE, stage ^= 1) {
      const int next = position + TILE;
      if (next < share.to) {
        loadTile(a, share, next, keys + (stage ^ 1) * TILE * PITCH, slots + (stage ^ 1) * TILE);
        waitCopies<1>();
      } else {
        waitCopies<0>();
      }
      __syncthreads();
      const uint32_t tile = keys + stage * TILE * PITCH;
      score(a, share, position, queries, tile, slots + stage * TILE, scores);
      __syncthreads();
      float rescale[2];
      uint32_t p[2][4];
      softmax(scores, top, sum, rescale, p);
#pragma unroll
      for (int c = 0; c < COLUMN_TILES; c++) {
        for (int i = 0; i < 4; i++) out[c][i] *= rescale[i / 2];
      }
      accumulate(tile, p, out);
      __syncthreads();
    }
    for (int half = 0; half < 2; half++) {
      sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
      sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
    }
    store(a, share, top, sum, out);
  }
};

/** Merges the splits of one query row a block. A sum of 0 says that a split saw nothing. */
template <typename T>
__device__ void mergeRow(const float* partials, const int* batchCount, void* out, float* lse, int latent, int rows,
                         int splits, int statsOffset, int counted, int outFloat) {
  const int sequence = blockIdx.x / rows;
  if (counted && sequence >= *batchCount) return;
  const size_t result = static_cast<size_t>(sequence) * splits * rows + blockIdx.x % rows;
  const float2* stats = reinterpret_cast<const float2*>(partials + statsOffset) + result;
  float top = NEGATIVE_INFINITY, sum = 0.f;
  for (int s = 0; s < splits; s++) {
    if (stats[s * rows].y > 0.f) top = fmaxf(top, stats[s * rows].x);
  }
  for (int s = 0; s < splits; s++) {
    const float2 stat = stats[s * rows];
    if (stat.y > 0.f) sum += stat.y * exp2Fast(stat.x - top);
  }
  const float inverse = sum > 0.f ? 1.f / sum : 0.f;
  for (int column = threadIdx.x * 2; column < latent; column += blockDim.x * 2) {
    float x = 0.f, y = 0.f;
    for (int s = 0; s < splits; s++) {
      const float2 stat = stats[s * rows];
      if (!(stat.y > 0.f)) continue;
      const float weight = exp2Fast(stat.x - top) * inverse;
      const float2 value = *reinterpret_cast<const float2*>(partials + (result + s * rows) * latent + column);
      x += weight * value.x;
      y += weight * value.y;
    }
    const size_t at = static_cast<size_t>(blockIdx.x) * latent + column;
    if (outFloat) *reinterpret_cast<float2*>(static_cast<float*>(out) + at) = make_float2(x, y);
    else *reinterpret_cast<uint32_t*>(static_cast<T*>(out) + at) = pack<T>(x, y);
  }
  if (threadIdx.x == 0) lse[blockIdx.x] = sum > 0.f ? (top + log2f(sum)) * LN_2 : -NEGATIVE_INFINITY;
}

}  // namespace flashmla

// mla-decode.fp8.cu has kernels of its own around the stages above.
#ifndef MLA_DECODE_STAGES_ONLY
#define PARTIAL(name, T, D_C, D_R)                                                                                     \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS) name(                                                \
      const void* q, const void* cache, const int* table, const int* lengths, const int* batchCount, float* partials,  \
      int pageSize, int pages, int tableWidth, int sQ, int heads, int splits, int mode, int statsOffset, int counted,  \
      float softmaxScale) {                                                                                            \
    flashmla::Decode<flashmla::T, D_C, D_R>::run({q, cache, table, lengths, batchCount, partials, pageSize, pages,     \
                                                  tableWidth, sQ, heads, splits, mode, statsOffset, counted,           \
                                                  softmaxScale});                                                      \
  }

#define MERGE(name, T)                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) name(const float* partials, const int* batchCount, void* out,      \
                                                         float* lse, int latent, int rows, int splits,                 \
                                                         int statsOffset, int counted, int outFloat) {                 \
    flashmla::mergeRow<flashmla::T>(partials, batchCount, out, lse, latent, rows, splits, statsOffset, counted,        \
                                    outFloat);                                                                         \
  }

#define WIDTHS(T)                                                                                                      \
  PARTIAL(mlaDecodePartial_##T##_128_32, T, 128, 32)                                                                   \
  PARTIAL(mlaDecodePartial_##T##_128_64, T, 128, 64)                                                                   \
  PARTIAL(mlaDecodePartial_##T##_256_32, T, 256, 32)                                                                   \
  PARTIAL(mlaDecodePartial_##T##_256_64, T, 256, 64)                                                                   \
  PARTIAL(mlaDecodePartial_##T##_512_32, T, 512, 32)                                                                   \
  PARTIAL(mlaDecodePartial_##T##_512_64, T, 512, 64)                                                                   \
  MERGE(mlaDecodeMerge_##T, T)

WIDTHS(bf16)
WIDTHS(f16)
#endif
