// mlaPrologue for decoding on Hopper with 16-bit weights and queries, in one launch. The first blocks append one token's entry each.
// Every other takes 256 latent channels of one head for some tokens, or all: its part of W_UK is on its way to shared memory, in boxes of
// the copy engine, before the block waits for the launch before it. A warp multiplies 64 of the channels, as the rows of
// mma.sync's first operand, and needs no other warp for its sums; with many tokens, two warps share the channels' boxes. Queries
// enter as two 16-bit parts, so that only the result is rounded. Further warps ask for the boxes and turn the rotary parts.
// Positions, slots and the number of tokens are read before the wait: they are there before the program runs.
#include "../common/sm90.cuh"
#include "../common/append.cuh"

namespace flashmla {

/** Boxes of 64 latent channels of a block. */
constexpr int COLUMNS = 4;
constexpr int CHANNELS = 64 * COLUMNS;
/** The named barrier of the warps that multiply. */
constexpr int COMPUTERS = 1;
/** Tokens whose rotary parts a lane turns at a time. */
constexpr int TURNED = 8;
/** Values of an entry that a thread holds. */
constexpr int HELD = 4;

struct FusedArguments {
  const float *q, *latents, *normWeight;
  const int *positions, *slots;
  const float *rotary, *queryScale;
  const void* kvB;
  uint8_t* cache;
  void* qOut;
  const int* rowCount;
  int maxRows, heads, nope, rope, value, latent, interleaved, hasQueryScale, cacheDtype, cacheRows;
  /** Tokens of a block. */
  int tokens;
  float epsilon;
};

/**
 * BOXES · 64 is the width of a head's queries without rotary ones; TOKENS are multiplied at a time. Where they are 4, a tile's eight columns
 * are their queries' high parts, then the low ones: one product does for both.
 */
template <typename T, int BOXES, int TOKENS> struct Absorb {
  static constexpr int NOPE = BOXES * 64;
  static constexpr int STEPS = BOXES * 4;
  /** Bytes from one token's query to the next: both parts, and 16 more, so that eight rows lie in different banks. */
  static constexpr int PITCH = NOPE * 4 + 16;
  static constexpr int OUT_PITCH = CHANNELS * 2 + 16;
  static constexpr bool PACKED = TOKENS == 4;
  /** Warps that share a column of boxes, and tiles of 8 tokens that each multiplies. */
  static constexpr int SHARING = TOKENS > 8 ? 2 : 1;
  static constexpr int TILES = PACKED ? 1 : TOKENS / 8 / SHARING;
  /** Independent sums of a tile, so that products need not wait for each other. */
  static constexpr int SUMS = TOKENS > 8 ? 1 : 2;
  /** Steps of 16 rows whose weights are in registers before the block waits for the launch before it. */
  static constexpr int KEPT = TOKENS > 8 || BOXES > 2 ? 0 : 4;
  static constexpr int COMPUTING = COLUMNS * SHARING;
  static constexpr int TURNING = SHARING;
  static constexpr int THREADS = 32 * (COMPUTING + TURNING);
  static constexpr int BLOCKS = TOKENS > 8 ? 2 : 3;

  struct Shared {
    uint8_t weights[COLUMNS][BOXES][BOX_BYTES];
    uint8_t queries[TOKENS * PITCH];
    uint8_t results[(PACKED ? 8 : TOKENS) * OUT_PITCH];
    uint64_t full[COLUMNS][BOXES];
  };

  /** Asks for the block's weights. */
  static __device__ __forceinline__ void fetch(const FusedArguments& a, const CUtensorMap* map, Shared& shared, int head, int part) {
#pragma unroll
    for (int box = 0; box < BOXES; box++) {
#pragma unroll
      for (int column = 0; column < COLUMNS; column++) {
        const uint32_t barrier = sharedAddress(&shared.full[column][box]);
        barrierExpect(barrier, BOX_BYTES);
        copyBox(sharedAddress(shared.weights[column][box]), map, part * CHANNELS + column * 64,
                head * (a.nope + a.value) + box * 64, barrier);
      }
    }
  }

  /** Two values as 16-bit parts: their sum differs from the value by 2^-17 of it. */
  static __device__ __forceinline__ void split(float x, float y, uint32_t& high, uint32_t& low) {
    high = pack<T>(x, y);
    const float2 rounded = unpack<T>(high);
    low = pack<T>(x - rounded.x, y - rounded.y);
  }

  /** Queries of TOKENS tokens from `first` on to shared memory; of tokens not in use too, whose number is not known yet. */
  static __device__ __forceinline__ void loadQueries(const FusedArguments& a, Shared& shared, int head, int first, int end) {
    constexpr int QUADS = NOPE / 4, ALL = TOKENS * QUADS, EACH = (ALL + 32 * COMPUTING - 1) / (32 * COMPUTING);
    const int width = a.nope + a.rope;
    float4 v[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
      const int i = threadIdx.x + k * 32 * COMPUTING, token = first + i / QUADS;
      v[k] = make_float4(0.f, 0.f, 0.f, 0.f);
      if (token < end && i < ALL) {
        v[k] = __ldcg(reinterpret_cast<const float4*>(a.q + (static_cast<size_t>(token) * a.heads + head) * width) + i % QUADS);
      }
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
      const int i = threadIdx.x + k * 32 * COMPUTING;
      if (ALL % (32 * COMPUTING) != 0 && i >= ALL) break;
      uint2 high, low;
      split(v[k].x, v[k].y, high.x, low.x);
      split(v[k].z, v[k].w, high.y, low.y);
      uint8_t* target = shared.queries + i / QUADS * PITCH + i % QUADS * 8;
      *reinterpret_cast<uint2*>(target) = high;
      *reinterpret_cast<uint2*>(target + NOPE * 2) = low;
    }
  }

  using Sums = float[SUMS][TILES][4][4];

  /** Writes a warp's 64 channels of its tiles, by way of shared memory, so that 128 bytes of a row go out together. */
  static __device__ __forceinline__ void store(const FusedArguments& a, Shared& shared, int head, int part, int column, int tile, int first,
                                               int rows, const float (&scale)[TILES][2], Sums& out) {
    const int lane = threadIdx.x % 32;
    const uint32_t results = sharedAddress(shared.results) + column * 128;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
      for (int m = 0; m < 4; m++) {
        float total[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          total[i] = out[0][t][m][i];
          if (SUMS == 2) total[i] += out[SUMS - 1][t][m][i];
          // Columns 4 … 7 are the low parts' share of 0 … 3.
          if (PACKED) total[i] += __shfl_xor_sync(~0u, total[i], 2);
          total[i] *= scale[t][i % 2];
        }
        storeMatricesTransposed(results + ((tile + t) * 8 + lane % 8) * OUT_PITCH + (m * 2 + lane / 8 % 2) * 16,
                                pack<T>(total[0], total[1]), pack<T>(total[2], total[3]));
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < (PACKED ? 1 : TILES * 2); i++) {
      const int own = tile * 8 + i * 4 + lane / 8, token = first + own;
      if (token >= rows) continue;
      const uint4 v = *reinterpret_cast<const uint4*>(shared.results + own * OUT_PITCH + column * 128 + lane % 8 * 16);
      T* target = static_cast<T*>(a.qOut) + (static_cast<size_t>(token) * a.heads + head) * (a.latent + a.rope) + part * CHANNELS + column * 64;
      reinterpret_cast<uint4*>(target)[lane % 8] = v;
    }
  }

  /** The weights of 16 rows and 16 channels as an operand. */
  static __device__ __forceinline__ void loadWeight(uint32_t weights, int step, int m, uint32_t (&weight)[4]) {
    const int lane = threadIdx.x % 32, row = step % 4 * 16 + lane / 16 * 8 + lane % 8;
    loadMatricesTransposed(weight, swizzled(weights + step / 4 * BOX_BYTES, row, m * 2 + lane / 8 % 2));
  }

  /** Adds the products of a step of 16 rows. */
  static __device__ __forceinline__ void addStep(uint32_t queries, int step, const uint32_t (&weight)[4][4], uint32_t (&query)[TILES][4], Sums& out) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    if (PACKED) {
      // Both steps of a pair at once: the matrices are four times 8 rows.
      if (step % 2 == 0) loadMatrices(query[0], queries + lane % 4 * PITCH + lane / 4 % 2 * (NOPE * 2) + (step * 16 + matrix * 8) * 2);
#pragma unroll
      for (int m = 0; m < 4; m++) multiply<T>(out[step % SUMS][0][m], weight[m], query[0][step % 2 * 2], query[0][step % 2 * 2 + 1]);
      return;
    }
#pragma unroll
    for (int t = 0; t < TILES; t++) {
      loadMatrices(query[t], queries + (t * 8 + lane % 8) * PITCH + matrix / 2 * (NOPE * 2) + (step * 16 + matrix % 2 * 8) * 2);
#pragma unroll
      for (int m = 0; m < 4; m++) {
        multiply<T>(out[0][t][m], weight[m], query[t][0], query[t][1]);
        multiply<T>(out[SUMS - 1][t][m], weight[m], query[t][2], query[t][3]);
      }
    }
  }

  /** Scales of the tokens whose results this lane has; positions are there before the program runs. */
  static __device__ __forceinline__ void loadScales(const FusedArguments& a, int first, int rows, float (&scale)[TILES][2]) {
#pragma unroll
    for (int i = 0; i < TILES * 2; i++) {
      const int token = first + i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
      scale[i / 2][i % 2] = a.hasQueryScale && token < rows ? a.queryScale[a.positions[token]] : 1.f;
    }
  }

  /** Tokens `begin` to `end`. */
  static __device__ __forceinline__ void multiplyAll(const FusedArguments& a, Shared& shared, int head, int part, int begin, int end) {
    const int warp = threadIdx.x / 32, column = warp % COLUMNS, tile = warp / COLUMNS * TILES;
    const uint32_t weights = sharedAddress(shared.weights[column]), queries = sharedAddress(shared.queries) + tile * 8 * PITCH;
    const int rows = min(__ldcg(a.rowCount), end);
    uint32_t kept[KEPT > 0 ? KEPT : 1][4][4];
    if constexpr (KEPT > 0) {
      barrierWait(sharedAddress(&shared.full[column][0]), 0);
#pragma unroll
      for (int i = 0; i < KEPT * 4; i++) loadWeight(weights, i / 4, i % 4, kept[i / 4][i % 4]);
    }
    for (int first = begin; first < end; first += TOKENS) {
      float scale[TILES][2];
      loadScales(a, first + tile * 8, rows, scale);
      if (first == begin) waitForEarlier();
      loadQueries(a, shared, head, first, end);
      meet(COMPUTERS, 32 * COMPUTING);
      Sums out = {};
      uint32_t query[TILES][4];
#pragma unroll
      for (int step = 0; step < STEPS; step++) {
        if (step < KEPT) {
          addStep(queries, step, kept[step], query, out);
          continue;
        }
        if (step % 4 == 0) barrierWait(sharedAddress(&shared.full[column][step / 4]), 0);
        uint32_t weight[4][4];
#pragma unroll
        for (int m = 0; m < 4; m++) loadWeight(weights, step, m, weight[m]);
        addStep(queries, step, weight, query, out);
      }
      store(a, shared, head, part, column, tile, first, rows, scale, out);
      if (first + TOKENS < end) meet(COMPUTERS, 32 * COMPUTING);
    }
  }

  /** Turns the rotary parts of every `stride`th token from `begin` on: each lane has a pair, of TURNED tokens at a time. */
  static __device__ __forceinline__ void turn(const FusedArguments& a, int head, int begin, int stride, int end) {
    const int rows = min(__ldcg(a.rowCount), end), width = a.nope + a.rope, outWidth = a.latent + a.rope;
    bool waited = false;
    for (int pair = threadIdx.x % 32; pair < a.rope / 2; pair += 32) {
      const int2 channel = channelsOf(pair, a.rope, a.interleaved);
      for (int first = begin; first < end; first += stride * TURNED) {
        float2 angle[TURNED], value[TURNED];
        int position[TURNED];
        // Of a token not in use, any position that exists: no load waits for a branch.
#pragma unroll
        for (int k = 0; k < TURNED; k++) position[k] = __ldcg(a.positions + min(first + k * stride, end - 1));
#pragma unroll
        for (int k = 0; k < TURNED; k++) {
          position[k] = first + k * stride < rows ? position[k] : 0;
          const float* table = a.rotary + static_cast<size_t>(position[k]) * a.rope + pair;
          const float scale = a.hasQueryScale ? a.queryScale[position[k]] : 1.f;
          angle[k] = make_float2(table[0] * scale, table[a.rope / 2] * scale);
        }
        if (!waited) waitForEarlier();
        waited = true;
#pragma unroll
        for (int k = 0; k < TURNED; k++) {
          const int row = min(first + k * stride, end - 1);
          const float* source = a.q + (static_cast<size_t>(row) * a.heads + head) * width + a.nope;
          value[k] = make_float2(__ldcg(source + channel.x), __ldcg(source + channel.y));
        }
#pragma unroll
        for (int k = 0; k < TURNED; k++) {
          const int row = first + k * stride;
          if (row >= rows) continue;
          T* target = static_cast<T*>(a.qOut) + (static_cast<size_t>(row) * a.heads + head) * outWidth + a.latent;
          target[channel.x] = narrow<T>(value[k].x * angle[k].x - value[k].y * angle[k].y);
          target[channel.y] = narrow<T>(value[k].y * angle[k].x + value[k].x * angle[k].y);
        }
      }
    }
    if (!waited) waitForEarlier();
  }

  static __device__ __forceinline__ void run(const FusedArguments& a, const CUtensorMap* map, uint8_t* memory, int block) {
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const int parts = a.latent / CHANNELS, part = block % parts, head = block / parts % a.heads, warp = threadIdx.x / 32;
    const int begin = block / (parts * a.heads) * a.tokens, end = min(begin + a.tokens, a.maxRows);
    if (threadIdx.x == 32 * COMPUTING) {
      for (int i = 0; i < COLUMNS * BOXES; i++) barrierInit(sharedAddress(&shared.full[0][0] + i), 1);
      barrierInitFence();
      fetch(a, map, shared, head, part);
    }
    __syncthreads();
    if (warp < COMPUTING) multiplyAll(a, shared, head, part, begin, end);
    else turn(a, head, begin + part + (warp - COMPUTING) * parts, parts * TURNING, end);
  }
};

/** Appends a token's entry: what `append` does, with everything that it reads asked for at once, and before the wait what is there by then. */
template <int THREADS> __device__ __forceinline__ void appendEntry(const FusedArguments& a, float* entry) {
  const int row = blockIdx.x, thread = threadIdx.x;
  float* sums = entry + a.latent + a.rope;
  const int rows = __ldcg(a.rowCount), slot = __ldcg(a.slots + row);
  const bool appends = row < rows && static_cast<unsigned>(slot) < static_cast<unsigned>(a.cacheRows), turns = thread < a.rope / 2;
  const int position = row < rows ? __ldcg(a.positions + row) : 0;
  const int2 at = channelsOf(thread, a.rope, a.interleaved);
  float value[HELD], weight[HELD], squares = 0.f;
#pragma unroll
  for (int k = 0; k < HELD; k++) {
    const int i = thread + k * THREADS;
    weight[k] = i < a.latent ? a.normWeight[i] : 0.f;
  }
  float2 pair = make_float2(0.f, 0.f), angle = pair;
  const float* table = a.rotary + static_cast<size_t>(position) * a.rope;
  if (turns) angle = make_float2(table[thread], table[thread + a.rope / 2]);
  waitForEarlier();
  if (!appends) return;
  const float* source = a.latents + static_cast<size_t>(row) * (a.latent + a.rope);
  if (turns) pair = make_float2(__ldcg(source + a.latent + at.x), __ldcg(source + a.latent + at.y));
#pragma unroll
  for (int k = 0; k < HELD; k++) {
    const int i = thread + k * THREADS;
    value[k] = i < a.latent ? __ldcg(source + i) : 0.f;
  }
#pragma unroll
  for (int k = 0; k < HELD; k++) squares += value[k] * value[k];
  const float2 turned = make_float2(pair.x * angle.x - pair.y * angle.y, pair.y * angle.x + pair.x * angle.y);
  squares = sumOfWarp(squares);
  if (thread % 32 == 0) sums[thread / 32] = squares;
  __syncthreads();
  float total = 0.f;
#pragma unroll
  for (int w = 0; w < THREADS / 32; w++) total += sums[w];
  const float scale = 1.f / sqrtf(total / a.latent + a.epsilon);
  uint8_t* target = a.cache + static_cast<size_t>(slot) * latentEntryBytes(a.cacheDtype, a.latent, a.rope);
  const bool staged = a.cacheDtype == STORED_FP8;
#pragma unroll
  for (int k = 0; k < HELD; k++) {
    const int i = thread + k * THREADS;
    if (i >= a.latent) break;
    const float result = value[k] * scale * weight[k];
    if (staged) entry[i] = result;
    else storeStored(target, a.cacheDtype, i, result);
  }
  if (turns) {
    if (staged) {
      entry[a.latent + at.x] = turned.x;
      entry[a.latent + at.y] = turned.y;
    } else {
      storeStored(target, a.cacheDtype, a.latent + at.x, turned.x);
      storeStored(target, a.cacheDtype, a.latent + at.y, turned.y);
    }
  }
  if (!staged) return;
  __syncthreads();
  storeFp8(entry, target, a.latent, a.rope);
}

template <typename T, int BOXES, int TOKENS>
__device__ __forceinline__ void fused(const FusedArguments& a, const CUtensorMap* map) {
  extern __shared__ __align__(1024) uint8_t memory[];
  letNextBegin();
  if (blockIdx.x < a.maxRows) appendEntry<Absorb<T, BOXES, TOKENS>::THREADS>(a, reinterpret_cast<float*>(memory));
  else Absorb<T, BOXES, TOKENS>::run(a, map, memory, blockIdx.x - a.maxRows);
}

}  // namespace flashmla

#define ABSORB(T, BOXES, TOKENS)                                                                                       \
  extern "C" __global__ void                                                                                           \
      __launch_bounds__(flashmla::Absorb<flashmla::T, BOXES, TOKENS>::THREADS, flashmla::Absorb<flashmla::T, BOXES, TOKENS>::BLOCKS) mlaPrologueAbsorb_##T##_##BOXES##_##TOKENS( \
      const __grid_constant__ CUtensorMap map, const float* q, const float* latents, const float* normWeight,          \
      const int* positions, const int* slots, const float* rotary, const float* queryScale, const void* kvB,           \
      uint8_t* cache, void* qOut, const int* rowCount, int maxRows, int heads, int nope, int rope, int value,          \
      int latent, int interleaved, int hasQueryScale, int cacheDtype, int cacheRows, int tokens, float epsilon) {      \
    flashmla::fused<flashmla::T, BOXES, TOKENS>(                                                                       \
        {q, latents, normWeight, positions, slots, rotary, queryScale, kvB, cache, qOut, rowCount, maxRows, heads,     \
         nope, rope, value, latent, interleaved, hasQueryScale, cacheDtype, cacheRows, tokens, epsilon},               \
        &map);                                                                                                         \
  }

#define BUILDS(T, BOXES) \
  ABSORB(T, BOXES, 4)    \
  ABSORB(T, BOXES, 8)    \
  ABSORB(T, BOXES, 16)   \
  ABSORB(T, BOXES, 32)

#define WIDTHS(T) \
  BUILDS(T, 1)    \
  BUILDS(T, 2)    \
  BUILDS(T, 3)

WIDTHS(bf16)
WIDTHS(f16)
