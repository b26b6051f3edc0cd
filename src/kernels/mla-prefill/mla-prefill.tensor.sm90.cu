// mlaPrefill on Hopper's tensor cores, in bf16 or f16. Three kinds of launches: the cache's entries are gathered into rows; for each
// group of heads they are multiplied by W_UK and W_UV into keys and values, [heads of the group, tokens, nope + value] in scratch
// memory; and blocks of 128 queries attend to them (FlashAttention-2 and -3, arXiv 2307.08691 and 2407.08608).
#include "../common/elements.cuh"
#include "../common/sm90.cuh"
#include "../common/wgmma-wide.cuh"

namespace flashmla {

/** Rows of tokens are written in whole tiles of this many, zeros past the sequence. */
constexpr int TOKEN_TILE = 128;
constexpr int THREADS = 384;
/** Rotary values of a gathered row, zeros past d_r: one box. */
constexpr int ROTARY = 64;

__device__ __forceinline__ int roundedUp(int length) { return (length + TOKEN_TILE - 1) / TOKEN_TILE * TOKEN_TILE; }

/** A warp a token: its latent values to `latents` [tokens, latent], its rotary ones to `rotary` [tokens, 64]. */
template <typename T>
__device__ void gather(const uint8_t* cache, const int* blockTable, int length, T* latents, T* rotary, int latent,
                       int rope, int dtype, int pageSize) {
  const int token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (token >= roundedUp(length)) return;
  const bool inside = token < length;
  const size_t slot = inside ? static_cast<size_t>(blockTable[token / pageSize]) * pageSize + token % pageSize : 0;
  const uint8_t* entry = cache + slot * latentEntryBytes(dtype, latent, rope);
  for (int i = lane * 4; i < latent; i += 128) {
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    if (inside) {
      v = make_float4(loadEntry(entry, dtype, latent, i), loadEntry(entry, dtype, latent, i + 1),
                      loadEntry(entry, dtype, latent, i + 2), loadEntry(entry, dtype, latent, i + 3));
    }
    storeFour(latents + static_cast<size_t>(token) * latent + i, v);
  }
  for (int i = lane; i < ROTARY; i += 32) {
    rotary[static_cast<size_t>(token) * ROTARY + i] =
        narrow<T>(inside && i < rope ? loadEntry(entry, dtype, latent, latent + i) : 0.f);
  }
}

// Expanding: a plain matrix product ------------------------------------------------------------------------------------

constexpr int EXPAND_STAGES = 4;
constexpr int EXPAND_ROWS = 256;
constexpr int TOKEN_BYTES = TOKEN_TILE * 128;
constexpr int WEIGHT_BYTES = EXPAND_ROWS * 128;

struct ExpandShared {
  uint8_t tokens[EXPAND_STAGES][TOKEN_BYTES];
  uint8_t weights[EXPAND_STAGES][WEIGHT_BYTES];
  uint64_t full[EXPAND_STAGES], empty[EXPAND_STAGES];
};

/** The dynamic shared memory from its first multiple of 1024 bytes on. */
template <typename Shared> __device__ __forceinline__ Shared& alignedShared() {
  extern __shared__ uint8_t dynamic[];
  return *reinterpret_cast<Shared*>((reinterpret_cast<uintptr_t>(dynamic) + 1023) & ~static_cast<uintptr_t>(1023));
}

/** Four lanes' pairs of columns in four groups of 8 become one lane's whole group: `words` of lane q is group q. */
__device__ __forceinline__ uint4 transposeQuad(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const int q = threadIdx.x % 4;
  // First between lanes that differ in bit 0, then in bit 1.
  uint32_t sent = q & 1 ? a : b;
  uint32_t got = __shfl_xor_sync(~0u, sent, 1);
  if (q & 1) a = got;
  else b = got;
  sent = q & 1 ? c : d;
  got = __shfl_xor_sync(~0u, sent, 1);
  if (q & 1) c = got;
  else d = got;
  sent = q & 2 ? a : c;
  got = __shfl_xor_sync(~0u, sent, 2);
  if (q & 2) a = got;
  else c = got;
  sent = q & 2 ? b : d;
  got = __shfl_xor_sync(~0u, sent, 2);
  if (q & 2) b = got;
  else d = got;
  return make_uint4(a, b, c, d);
}

/** Persistent blocks make tiles of 128 tokens × 256 weight rows; two warpgroups take 64 tokens each, a third fetches. */
template <typename T>
__device__ void expand(const CUtensorMap* tokenMap, const CUtensorMap* weightMap, int length, T* expanded, int firstRow,
                       int groupRows, int rows, int latent, int tokens) {
  ExpandShared& shared = alignedShared<ExpandShared>();
  const int thread = threadIdx.x % 128, warpgroup = uniform(threadIdx.x / 128), steps = latent / 64;
  if (threadIdx.x == 0) {
    for (int s = 0; s < EXPAND_STAGES; s++) {
      barrierInit(sharedAddress(&shared.full[s]), 1);
      barrierInit(sharedAddress(&shared.empty[s]), 2);
    }
    barrierInitFence();
  }
  __syncthreads();
  const int tokenTiles = roundedUp(length) / TOKEN_TILE, rowTiles = (groupRows + EXPAND_ROWS - 1) / EXPAND_ROWS;
  const int tiles = tokenTiles * rowTiles;
  if (warpgroup == 2) {
    giveRegisters<40>();
    if (thread != 0) return;
    int step = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const int token = tile % tokenTiles * TOKEN_TILE, row = firstRow + tile / tokenTiles * EXPAND_ROWS;
      for (int k = 0; k < steps; k++, step++) {
        const int stage = step % EXPAND_STAGES;
        const uint32_t full = sharedAddress(&shared.full[stage]);
        barrierWait(sharedAddress(&shared.empty[stage]), (step / EXPAND_STAGES & 1) ^ 1);
        barrierExpect(full, TOKEN_BYTES + WEIGHT_BYTES);
        copyBox(sharedAddress(shared.tokens[stage]), tokenMap, k * 64, token, full);
        copyBox(sharedAddress(shared.weights[stage]), weightMap, k * 64, row, full);
      }
    }
    return;
  }
  takeRegisters<232>();
  int step = 0;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int token = tile % tokenTiles * TOKEN_TILE, firstColumn = tile / tokenTiles * EXPAND_ROWS;
    float sums[EXPAND_ROWS / 2];
#pragma unroll
    for (int i = 0; i < EXPAND_ROWS / 2; i++) sums[i] = 0.f;
    for (int k = 0; k < steps; k++, step++) {
      const int stage = step % EXPAND_STAGES;
      barrierWait(sharedAddress(&shared.full[stage]), step / EXPAND_STAGES & 1);
      const uint32_t x = sharedAddress(shared.tokens[stage]) + warpgroup * BOX_BYTES;
      const uint32_t w = sharedAddress(shared.weights[stage]);
      pin(sums);
      warpgroupArrive();
#pragma unroll
      for (int i = 0; i < 4; i++) Wgmma<T, EXPAND_ROWS, 0, 0>::run(sums, describe(x + i * 32), describe(w + i * 32));
      warpgroupCommit();
      warpgroupWait<0>();
      pin(sums);
      if (thread == 0) barrierArrive(sharedAddress(&shared.empty[stage]));
    }
    const int line = token + warpgroup * 64 + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int group = 0; group < EXPAND_ROWS / 8; group += 4) {
      const int column = firstColumn + (group + thread % 4) * 8;
      const int head = column / rows, inHead = column - head * rows;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint32_t word[4];
#pragma unroll
        for (int g = 0; g < 4; g++) {
          word[g] = pack<T>(sums[(group + g) * 4 + half * 2], sums[(group + g) * 4 + half * 2 + 1]);
        }
        const uint4 values = transposeQuad(word[0], word[1], word[2], word[3]);
        if (column < groupRows) {
          T* target = expanded + (static_cast<size_t>(head) * tokens + line + half * 8) * rows + inHead;
          *reinterpret_cast<uint4*>(target) = values;
        }
      }
    }
  }
}

// Attending ------------------------------------------------------------------------------------------------------------

struct AttendArguments {
  const int *cacheSeqlens, *rowCount;
  void* out;
  int firstHead, groupHeads, heads, tokens, outDtype;
  float base2Scale;
};

/** KEYS tokens a tile; two stages. Two warpgroups have 64 queries each. */
template <typename T, int NOPE, int ROPE, int VALUE, int KEYS> struct Attend {
  static constexpr int NOPE_BOXES = NOPE / 64;
  static constexpr int KEY_BOXES = NOPE_BOXES + 1;
  static constexpr int VALUE_BOXES = VALUE / 64;
  static constexpr int KEY_BOX = KEYS * 128;
  static constexpr int WIDTH = NOPE + ROPE;

  struct Shared {
    uint8_t keys[2][KEY_BOXES * KEY_BOX];
    uint8_t values[2][VALUE_BOXES * KEY_BOX];
    uint8_t queries[2][KEY_BOXES * BOX_BYTES];
    uint64_t keysFull[2], keysEmpty[2], valuesFull[2], valuesEmpty[2], queriesFull;
  };

  static __device__ void produce(const CUtensorMap* queryMap, const CUtensorMap* expandedMap,
                                 const CUtensorMap* rotaryMap, const AttendArguments& a, Shared& shared, int head,
                                 int firstRow, int tiles) {
    const uint32_t queriesFull = sharedAddress(&shared.queriesFull);
    barrierExpect(queriesFull, 2 * KEY_BOXES * BOX_BYTES);
    for (int group = 0; group < 2; group++) {
      for (int box = 0; box < KEY_BOXES; box++) {
        copyBox(sharedAddress(shared.queries[group]) + box * BOX_BYTES, queryMap,
                (a.firstHead + head) * WIDTH + box * 64, firstRow + group * 64, queriesFull);
      }
    }
    for (int tile = 0; tile < tiles; tile++) {
      const int stage = tile & 1, parity = (tile >> 1 & 1) ^ 1, token = tile * KEYS, row = head * a.tokens + token;
      const uint32_t keysFull = sharedAddress(&shared.keysFull[stage]), keys = sharedAddress(shared.keys[stage]);
      barrierWait(sharedAddress(&shared.keysEmpty[stage]), parity);
      barrierExpect(keysFull, KEY_BOXES * KEY_BOX);
      for (int box = 0; box < NOPE_BOXES; box++) copyBox(keys + box * KEY_BOX, expandedMap, box * 64, row, keysFull);
      copyBox(keys + NOPE_BOXES * KEY_BOX, rotaryMap, 0, token, keysFull);
      const uint32_t valuesFull = sharedAddress(&shared.valuesFull[stage]);
      const uint32_t values = sharedAddress(shared.values[stage]);
      barrierWait(sharedAddress(&shared.valuesEmpty[stage]), parity);
      barrierExpect(valuesFull, VALUE_BOXES * KEY_BOX);
      for (int box = 0; box < VALUE_BOXES; box++) {
        copyBox(values + box * KEY_BOX, expandedMap, NOPE + box * 64, row, valuesFull);
      }
    }
  }

  /** Has the probabilities in registers before products begin that are still under way when they are read. */
  static __device__ __forceinline__ void settle(uint32_t (&p)[KEYS / 16][4]) {
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) asm volatile("" : "+r"(p[k][i])::"memory");
    }
  }

  /** Starts s = queries · keys. */
  static __device__ __forceinline__ void startScores(Shared& shared, int group, int stage, float (&s)[KEYS / 2]) {
    const uint32_t keys = sharedAddress(shared.keys[stage]), queries = sharedAddress(shared.queries[group]);
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) s[i] = 0.f;
    pin(s);
    warpgroupArrive();
#pragma unroll
    for (int box = 0; box < KEY_BOXES; box++) {
#pragma unroll
      for (int k = 0; k < (box < NOPE_BOXES ? 4 : ROPE / 16); k++) {
        Wgmma<T, KEYS, 0, 0>::run(s, describe(queries + box * BOX_BYTES + k * 32), describe(keys + box * KEY_BOX + k * 32));
      }
    }
    warpgroupCommit();
  }

  /** Starts out += p · values. */
  static __device__ __forceinline__ void startValues(Shared& shared, int stage, const uint32_t (&p)[KEYS / 16][4],
                                                     float (&out)[VALUE / 2]) {
    const uint32_t values = sharedAddress(shared.values[stage]);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
      WgmmaRegisters<T, VALUE, 1>::run(out, p[k], describe(values + k * 2048, KEY_BOX));
    }
    warpgroupCommit();
  }

  /** Probabilities as operand registers. */
  static __device__ __forceinline__ void narrowInto(uint32_t (&p)[KEYS / 16][4], const float (&s)[KEYS / 2]) {
#pragma unroll
    for (int i = 0; i < KEYS / 2; i += 2) p[i / 8][i / 4 % 2 * 2 + i / 2 % 2] = pack<T>(s[i], s[i + 1]);
  }

  /** Turns a tile's scores into probabilities; gives the maxima with those before, and what these change. */
  static __device__ __forceinline__ void softmax(float (&s)[KEYS / 2], const int (&visible)[2], int firstToken,
                                                 float scale, float (&top)[2], float (&sum)[2], float (&factor)[2]) {
    const int lane = threadIdx.x % 32;
    float most[2] = {top[0], top[1]};
    const bool whole = firstToken + KEYS <= min(visible[0], visible[1]);
    if (!__all_sync(~0u, whole)) {
#pragma unroll
      for (int i = 0; i < KEYS / 2; i++) {
        if (firstToken + i / 4 * 8 + lane % 4 * 2 + i % 2 >= visible[i / 2 % 2]) s[i] = NEGATIVE_INFINITY;
      }
    }
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
    float base[2], added[2] = {0.f, 0.f};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 1));
      most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 2));
      base[half] = most[half] == NEGATIVE_INFINITY ? 0.f : most[half] * scale;
      factor[half] = exp2Fast(top[half] * scale - base[half]);
      top[half] = most[half];
    }
#pragma unroll
    for (int i = 0; i < KEYS / 2; i += 2) {
      const int half = i / 2 % 2;
      s[i] = exp2Fast(s[i] * scale - base[half]);
      s[i + 1] = exp2Fast(s[i + 1] * scale - base[half]);
      added[half] += s[i] + s[i + 1];
    }
#pragma unroll
    for (int half = 0; half < 2; half++) sum[half] = sum[half] * factor[half] + added[half];
  }

  static __device__ __forceinline__ void store(const AttendArguments& a, int head, int row, int rows,
                                               const float (&sum)[2], const float (&out)[VALUE / 2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = sum[half];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const float inverse = total > 0.f ? 1.f / total : 0.f;
      if (row + half * 8 >= rows) continue;
      const size_t at = (static_cast<size_t>(row + half * 8) * a.heads + a.firstHead + head) * VALUE + lane % 4 * 2;
#pragma unroll
      for (int g = 0; g < VALUE / 8; g++) {
        const float x = out[g * 4 + half * 2] * inverse, y = out[g * 4 + half * 2 + 1] * inverse;
        if (a.outDtype == STORED_F32) {
          *reinterpret_cast<float2*>(static_cast<float*>(a.out) + at + g * 8) = make_float2(x, y);
        } else {
          *reinterpret_cast<uint32_t*>(static_cast<T*>(a.out) + at + g * 8) = pack<T>(x, y);
        }
      }
    }
  }

  static __device__ void consume(const AttendArguments& a, Shared& shared, int group, int head, int firstRow, int tiles,
                                 int rows, int offset, int length) {
    const int thread = threadIdx.x % 128, row = firstRow + group * 64 + thread / 32 * 16 + thread % 32 / 4;
    const int visible[2] = {min(length, offset + row + 1), min(length, offset + row + 9)};
    float out[VALUE / 2], s[KEYS / 2], sum[2] = {0.f, 0.f}, top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, factor[2];
    uint32_t p[KEYS / 16][4];
#pragma unroll
    for (int i = 0; i < VALUE / 2; i++) out[i] = 0.f;
    barrierWait(sharedAddress(&shared.queriesFull), 0);
    barrierWait(sharedAddress(&shared.keysFull[0]), 0);
    startScores(shared, group, 0, s);
    warpgroupWait<0>();
    pin(s);
    if (thread == 0) barrierArrive(sharedAddress(&shared.keysEmpty[0]));
    softmax(s, visible, 0, a.base2Scale, top, sum, factor);
    narrowInto(p, s);
    for (int tile = 1; tile < tiles; tile++) {
      const int stage = tile & 1, parity = tile >> 1 & 1, last = stage ^ 1, lastParity = (tile - 1) >> 1 & 1;
      barrierWait(sharedAddress(&shared.keysFull[stage]), parity);
      barrierWait(sharedAddress(&shared.valuesFull[last]), lastParity);
      settle(p);
      pin(out);
      startScores(shared, group, stage, s);
      startValues(shared, last, p, out);
      // The scores are done; the values' products go on beside this tile's softmax.
      warpgroupWait<1>();
      pin(s);
      if (thread == 0) barrierArrive(sharedAddress(&shared.keysEmpty[stage]));
      softmax(s, visible, tile * KEYS, a.base2Scale, top, sum, factor);
      warpgroupWait<0>();
      pin(out);
      if (thread == 0) barrierArrive(sharedAddress(&shared.valuesEmpty[last]));
#pragma unroll
      for (int i = 0; i < VALUE / 2; i++) out[i] *= factor[i / 2 % 2];
      narrowInto(p, s);
    }
    const int last = (tiles - 1) & 1;
    barrierWait(sharedAddress(&shared.valuesFull[last]), (tiles - 1) >> 1 & 1);
    settle(p);
    pin(out);
    startValues(shared, last, p, out);
    warpgroupWait<0>();
    pin(out);
    store(a, head, row, rows, sum, out);
  }

  static __device__ void run(const CUtensorMap* queryMap, const CUtensorMap* expandedMap, const CUtensorMap* rotaryMap,
                             const AttendArguments& a) {
    Shared& shared = alignedShared<Shared>();
    const int warpgroup = uniform(threadIdx.x / 128), rows = *a.rowCount, length = min(*a.cacheSeqlens, a.tokens);
    // Blocks with the most keys come first.
    const int rowBlocks = gridDim.x / a.groupHeads;
    const int head = blockIdx.x % a.groupHeads, firstRow = (rowBlocks - 1 - blockIdx.x / a.groupHeads) * 128;
    if (firstRow >= rows) return;
    const int offset = length - rows, end = min(length, offset + min(rows, firstRow + 128));
    const int tiles = max(1, (end + KEYS - 1) / KEYS);
    if (threadIdx.x == 0) {
      for (int s = 0; s < 2; s++) {
        barrierInit(sharedAddress(&shared.keysFull[s]), 1);
        barrierInit(sharedAddress(&shared.valuesFull[s]), 1);
        barrierInit(sharedAddress(&shared.keysEmpty[s]), 2);
        barrierInit(sharedAddress(&shared.valuesEmpty[s]), 2);
      }
      barrierInit(sharedAddress(&shared.queriesFull), 1);
      barrierInitFence();
    }
    __syncthreads();
    if (warpgroup == 2) {
      giveRegisters<24>();
      if (threadIdx.x % 128 == 0) produce(queryMap, expandedMap, rotaryMap, a, shared, head, firstRow, tiles);
      return;
    }
    takeRegisters<240>();
    consume(a, shared, warpgroup, head, firstRow, tiles, rows, offset, length);
  }
};

}  // namespace flashmla

#define GATHER(T)                                                                                                      \
  extern "C" __global__ void __launch_bounds__(256) mlaPrefillGather_##T(                                              \
      const uint8_t* cache, const int* blockTable, const int* cacheSeqlens, void* scratch, int latent, int rope,       \
      int dtype, int pageSize, int tokens) {                                                                           \
    flashmla::T* latents = static_cast<flashmla::T*>(scratch);                                                         \
    flashmla::gather<flashmla::T>(cache, blockTable, min(*cacheSeqlens, tokens), latents,                              \
                                  latents + static_cast<size_t>(tokens) * latent, latent, rope, dtype, pageSize);      \
  }

#define EXPAND(T)                                                                                                      \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1) mlaPrefillTensorExpand_##T(                       \
      const __grid_constant__ CUtensorMap tokenMap, const __grid_constant__ CUtensorMap weightMap, const void* kvB,    \
      const int* cacheSeqlens, void* scratch, int firstRow, int groupRows, int rows, int latent, int tokens) {         \
    flashmla::T* expanded =                                                                                            \
        static_cast<flashmla::T*>(scratch) + static_cast<size_t>(tokens) * (latent + flashmla::ROTARY);                \
    flashmla::expand<flashmla::T>(&tokenMap, &weightMap, min(*cacheSeqlens, tokens), expanded, firstRow, groupRows,    \
                                  rows, latent, tokens);                                                               \
  }

#define ATTEND(T, NOPE, ROPE, VALUE, KEYS)                                                                             \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1)                                                   \
      mlaPrefillTensorAttend_##T##_##NOPE##_##ROPE##_##VALUE(                                                          \
          const __grid_constant__ CUtensorMap queryMap, const __grid_constant__ CUtensorMap expandedMap,               \
          const __grid_constant__ CUtensorMap rotaryMap, const void* q, const int* cacheSeqlens, const int* rowCount,  \
          void* out, void* scratch, int firstHead, int groupHeads, int heads, int tokens, int outDtype,                \
          float base2Scale) {                                                                                          \
    flashmla::Attend<flashmla::T, NOPE, ROPE, VALUE, KEYS>::run(                                                       \
        &queryMap, &expandedMap, &rotaryMap,                                                                           \
        {cacheSeqlens, rowCount, out, firstHead, groupHeads, heads, tokens, outDtype, base2Scale});                    \
  }

#define ELEMENT(T)                                                                                                     \
  GATHER(T)                                                                                                            \
  EXPAND(T)                                                                                                            \
  ATTEND(T, 128, 64, 128, 128)                                                                                         \
  ATTEND(T, 64, 64, 128, 128)                                                                                          \
  ATTEND(T, 64, 32, 64, 128)                                                                                           \
  ATTEND(T, 192, 64, 256, 64)

ELEMENT(bf16)
ELEMENT(f16)
