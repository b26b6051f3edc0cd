// mlaPrefill in float32 for Ampere and newer, any widths. Two launches for each group of heads: the cache's tokens are expanded to
// keys and values in scratch memory, [heads of the group, tokens, nope + value], then blocks of 32 queries attend to them in tiles
// of 32. mla-prefill.tensor.cu does the same on tensor cores.
#include "../common/elements.cuh"

namespace flashmla {

constexpr int EDGE = 64;
constexpr int DEPTH = 16;

struct ExpandArguments {
  const uint8_t* cache;
  const int *blockTable, *cacheSeqlens;
  const void* kvB;
  float* expanded;
  int firstHead, rows, latent, rope, cacheDtype, pageSize, tokens;
};

/** A block makes 64 tokens × 64 of a head's rows: a thread 4 × 4 of them. The grid runs over row tiles, token tiles, heads. */
template <typename W> __device__ void expand(const ExpandArguments& a) {
  __shared__ __align__(16) float latents[DEPTH][EDGE + 4], weights[DEPTH][EDGE + 4];
  const int rowTiles = (a.rows + EDGE - 1) / EDGE, tokenTiles = (a.tokens + EDGE - 1) / EDGE;
  const int firstRow = blockIdx.x % rowTiles * EDGE, firstToken = blockIdx.x / rowTiles % tokenTiles * EDGE;
  const int head = blockIdx.x / (rowTiles * tokenTiles);
  const int length = min(*a.cacheSeqlens, a.tokens);
  if (firstToken >= length) return;
  const W* w = static_cast<const W*>(a.kvB) + static_cast<size_t>(a.firstHead + head) * a.rows * a.latent;
  const size_t entryBytes = latentEntryBytes(a.cacheDtype, a.latent, a.rope);
  const int line = threadIdx.x / 4, column = threadIdx.x % 4 * 4;
  const int token = firstToken + line;
  const uint8_t* entry = a.cache;
  if (token < length) {
    entry += (static_cast<size_t>(a.blockTable[token / a.pageSize]) * a.pageSize + token % a.pageSize) * entryBytes;
  }
  float sums[4][4] = {};
  for (int k = 0; k < a.latent; k += DEPTH) {
    for (int i = 0; i < 4; i++) {
      const int c = k + column + i;
      latents[column + i][line] = token < length && c < a.latent ? loadEntry(entry, a.cacheDtype, a.latent, c) : 0.f;
      const bool inside = firstRow + line < a.rows && c < a.latent;
      weights[column + i][line] = inside ? widen(w[static_cast<size_t>(firstRow + line) * a.latent + c]) : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      const float4 x = *reinterpret_cast<const float4*>(&latents[d][threadIdx.x / 16 * 4]);
      const float4 y = *reinterpret_cast<const float4*>(&weights[d][threadIdx.x % 16 * 4]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += xs[i] * ys[j];
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; i++) {
    const int t = firstToken + threadIdx.x / 16 * 4 + i, row = firstRow + threadIdx.x % 16 * 4;
    if (t >= length) break;
    float* target = a.expanded + (static_cast<size_t>(head) * a.tokens + t) * a.rows;
    for (int j = 0; j < 4; j++) {
      if (row + j < a.rows) target[row + j] = sums[i][j];
    }
  }
}

constexpr int QUERIES = 32;
constexpr int KEYS = 32;
constexpr int MOST_VALUES = 256;
constexpr int THREADS = 256;

struct AttendArguments {
  const void* q;
  const uint8_t* cache;
  const int *blockTable, *cacheSeqlens, *rowCount;
  void* out;
  const float* expanded;
  int firstHead, groupHeads, heads, nope, rope, value, latent, cacheDtype, pageSize, tokens, qDtype, outDtype;
  float base2Scale;
};

/** Thread t has query t / 8; of a tile its keys t % 8 + 8·j, of the output its columns t % 8 + 8·j. */
__device__ void attend(const AttendArguments& a) {
  extern __shared__ __align__(16) float shared[];
  const int queryWidth = a.nope + a.rope, pitch = queryWidth + 4, expandedWidth = a.nope + a.value;
  float* const queries = shared;
  float* const keys = queries + QUERIES * pitch;
  float* const values = keys + KEYS * pitch;
  float* const weights = values + KEYS * a.value;
  const int head = blockIdx.x % a.groupHeads, first = blockIdx.x / a.groupHeads * QUERIES;
  const int rows = min(QUERIES, *a.rowCount - first);
  if (rows <= 0) return;
  const int length = min(*a.cacheSeqlens, a.tokens), offset = length - *a.rowCount;
  const int query = threadIdx.x / 8, part = threadIdx.x % 8;
  for (int i = threadIdx.x; i < QUERIES * queryWidth; i += THREADS) {
    const int row = i / queryWidth, column = i % queryWidth;
    const size_t at = (static_cast<size_t>(first + row) * a.heads + a.firstHead + head) * queryWidth + column;
    queries[row * pitch + column] = row < rows ? loadStored(a.q, a.qDtype, at) * a.base2Scale : 0.f;
  }
  const size_t entryBytes = latentEntryBytes(a.cacheDtype, a.latent, a.rope);
  const float* expanded = a.expanded + static_cast<size_t>(head) * a.tokens * expandedWidth;
  // Query r sees the tokens up to offset + r.
  const int visible = offset + first + query + 1, end = min(length, offset + first + rows);
  float top = NEGATIVE_INFINITY, sum = 0.f, out[MOST_VALUES / 8] = {};
  for (int start = 0; start < end; start += KEYS) {
    __syncthreads();
    for (int i = threadIdx.x; i < KEYS * expandedWidth; i += THREADS) {
      const int t = i / expandedWidth, column = i % expandedWidth;
      const float value = start + t < end ? expanded[static_cast<size_t>(start + t) * expandedWidth + column] : 0.f;
      if (column < a.nope) keys[t * pitch + column] = value;
      else values[t * a.value + column - a.nope] = value;
    }
    for (int i = threadIdx.x; i < KEYS * a.rope; i += THREADS) {
      const int t = i / a.rope, column = i % a.rope, token = start + t;
      float value = 0.f;
      if (token < end) {
        const size_t slot = static_cast<size_t>(a.blockTable[token / a.pageSize]) * a.pageSize + token % a.pageSize;
        value = loadEntry(a.cache + slot * entryBytes, a.cacheDtype, a.latent, a.latent + column);
      }
      keys[t * pitch + a.nope + column] = value;
    }
    __syncthreads();
    float scores[4] = {};
    for (int i = 0; i < queryWidth; i += 4) {
      const float4 q = *reinterpret_cast<const float4*>(queries + query * pitch + i);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float4 k = *reinterpret_cast<const float4*>(keys + (part + 8 * j) * pitch + i);
        scores[j] += q.x * k.x + q.y * k.y + q.z * k.z + q.w * k.w;
      }
    }
    float newTop = top;
    for (int j = 0; j < 4; j++) {
      if (start + part + 8 * j >= visible) scores[j] = NEGATIVE_INFINITY;
      newTop = fmaxf(newTop, scores[j]);
    }
    for (int step = 1; step < 8; step *= 2) newTop = fmaxf(newTop, __shfl_xor_sync(~0u, newTop, step));
    const float factor = sum > 0.f ? exp2f(top - newTop) : 0.f;
    float added = 0.f;
    for (int j = 0; j < 4; j++) {
      const float weight = scores[j] == NEGATIVE_INFINITY ? 0.f : exp2f(scores[j] - newTop);
      weights[query * KEYS + part + 8 * j] = weight;
      added += weight;
    }
    for (int step = 1; step < 8; step *= 2) added += __shfl_xor_sync(~0u, added, step);
    sum = sum * factor + added;
    top = newTop;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < MOST_VALUES / 8; j++) out[j] *= factor;
    for (int t = 0; t < KEYS; t++) {
      const float weight = weights[query * KEYS + t];
#pragma unroll
      for (int j = 0; j < MOST_VALUES / 8; j++) {
        if (8 * j < a.value) out[j] += weight * values[t * a.value + part + 8 * j];
      }
    }
  }
  if (query >= rows) return;
  const float inverse = sum > 0.f ? 1.f / sum : 0.f;
  const size_t at = (static_cast<size_t>(first + query) * a.heads + a.firstHead + head) * a.value + part;
#pragma unroll
  for (int j = 0; j < MOST_VALUES / 8; j++) {
    if (8 * j < a.value) storeStored(a.out, a.outDtype, at + 8 * j, out[j] * inverse);
  }
}

}  // namespace flashmla

#define EXPAND(name, W)                                                                                                \
  extern "C" __global__ void __launch_bounds__(256) name(                                                              \
      const uint8_t* cache, const int* blockTable, const int* cacheSeqlens, const void* kvB, float* expanded,          \
      int firstHead, int rows, int latent, int rope, int cacheDtype, int pageSize, int tokens) {                       \
    flashmla::expand<W>({cache, blockTable, cacheSeqlens, kvB, expanded, firstHead, rows, latent, rope, cacheDtype,    \
                         pageSize, tokens});                                                                           \
  }

EXPAND(mlaPrefillExpand_bf16, flashmla::bf16)
EXPAND(mlaPrefillExpand_f16, flashmla::f16)
EXPAND(mlaPrefillExpand_f32, float)

extern "C" __global__ void __launch_bounds__(flashmla::THREADS)
    mlaPrefillAttend(const void* q, const uint8_t* cache, const int* blockTable, const int* cacheSeqlens,
                     const int* rowCount, void* out, const float* expanded, int firstHead, int groupHeads, int heads,
                     int nope, int rope, int value, int latent, int cacheDtype, int pageSize, int tokens, int qDtype,
                     int outDtype, float base2Scale) {
  flashmla::attend({q, cache, blockTable, cacheSeqlens, rowCount, out, expanded, firstHead, groupHeads, heads, nope, rope,
                    value, latent, cacheDtype, pageSize, tokens, qDtype, outDtype, base2Scale});
}
