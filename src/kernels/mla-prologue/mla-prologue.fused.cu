// mlaPrologue for decoding with 16-bit weights and queries, in one launch, for Ampere and newer (mma.sync). The first blocks append one
// token's entry each; every other takes 64 latent channels of one head for all tokens. Its weights are in registers before it
// waits for the launch before it; queries enter the products as two 16-bit parts, so that only the result is rounded.
#include "../common/append.cuh"

namespace flashmla {

constexpr int WARPS = 4;
constexpr int CHANNELS = 64;
/** Tokens of a pass over the weights in registers. */
constexpr int TOKENS = 16;

struct FusedArguments {
  const float *q, *latents, *normWeight;
  const int *positions, *slots;
  const float *rotary, *queryScale;
  const void* kvB;
  uint8_t* cache;
  void* qOut;
  const int* rowCount;
  int maxRows, heads, nope, rope, value, latent, interleaved, hasQueryScale, cacheDtype, cacheRows, prefetches;
  float epsilon;
};

/** STEPS · 16 · WARPS is the width of a head's queries without rotary ones. */
template <typename T, int STEPS> struct Absorb {
  /** Lane (g = lane / 4, q = lane % 4) has rows 2q, 2q + 1, 2q + 8, 2q + 9 of every step, and of them channels 8g … 8g + 7. */
  static __device__ __forceinline__ void loadWeights(const FusedArguments& a, int head, int part, uint4 (&w)[STEPS][4]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const T* base = static_cast<const T*>(a.kvB) + static_cast<size_t>(head) * (a.nope + a.value) * a.latent +
                    part * CHANNELS + lane / 4 * 8;
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
#pragma unroll
      for (int r = 0; r < 4; r++) {
        const int row = (warp * STEPS + s) * 16 + lane % 4 * 2 + r % 2 + r / 2 * 8;
        w[s][r] = loadConstant16(base + static_cast<size_t>(row) * a.latent);
      }
    }
  }

  /** Asks the second-level cache for this block's part of the head's W_UV, which the epilogue reads. */
  static __device__ __forceinline__ void prefetchValues(const FusedArguments& a, int head, int part, int parts) {
#if __CUDA_ARCH__ >= 900
    if (!a.prefetches || threadIdx.x != 0) return;
    const T* base = static_cast<const T*>(a.kvB) + (static_cast<size_t>(head) * (a.nope + a.value) + a.nope) * a.latent;
    const int bytes = a.value * a.latent * 2 / parts & ~15;
    const uint8_t* from = reinterpret_cast<const uint8_t*>(base) + part * bytes;
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
  }

  /** Two values as 16-bit parts: their sum differs from the value by 2^-17 of it. */
  static __device__ __forceinline__ void split(float2 v, uint32_t& high, uint32_t& low) {
    high = pack<T>(v.x, v.y);
    const float2 rounded = unpack<T>(high);
    low = pack<T>(v.x - rounded.x, v.y - rounded.y);
  }

  static __device__ void run(const FusedArguments& a, int block) {
    __shared__ float sums[WARPS][TOKENS][CHANNELS + 4];
    const int parts = a.latent / CHANNELS, part = block % parts, head = block / parts;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, quad = lane % 4;
    uint4 w[STEPS][4];
    loadWeights(a, head, part, w);
    waitForEarlier();
    const int rows = min(*a.rowCount, a.maxRows);
    const int width = a.nope + a.rope, outWidth = a.latent + a.rope;
    // Queries of tokens that are not in use are loaded with the others, before their number is known, and go nowhere.
    for (int first = 0; first < a.maxRows; first += TOKENS) {
      float out[8][4] = {};
#pragma unroll
      for (int s = 0; s < STEPS; s++) {
        uint32_t high[4], low[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int token = first + g + i % 2 * 8, k = (warp * STEPS + s) * 16 + quad * 2 + i / 2 * 8;
          float2 v = make_float2(0.f, 0.f);
          if (token < a.maxRows) {
            v = *reinterpret_cast<const float2*>(a.q + (static_cast<size_t>(token) * a.heads + head) * width + k);
          }
          split(v, high[i], low[i]);
        }
        const uint32_t* words[4] = {&w[s][0].x, &w[s][1].x, &w[s][2].x, &w[s][3].x};
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const uint32_t select = j % 2 == 0 ? 0x5410 : 0x7632;
          const uint32_t b0 = __byte_perm(words[0][j / 2], words[1][j / 2], select);
          const uint32_t b1 = __byte_perm(words[2][j / 2], words[3][j / 2], select);
          multiply<T>(out[j], high, b0, b1);
          multiply<T>(out[j], low, b0, b1);
        }
      }
      // Product j of lane group n is channel 8n + j.
#pragma unroll
      for (int j = 0; j < 8; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[warp][g + i / 2 * 8][(quad * 2 + i % 2) * 8 + j] = out[j][i];
      }
      __syncthreads();
      const int count = min(TOKENS, rows - first);
      for (int i = threadIdx.x; i < count * (CHANNELS / 2); i += 32 * WARPS) {
        const int token = i / (CHANNELS / 2), channel = i % (CHANNELS / 2) * 2;
        const float scale = a.hasQueryScale ? a.queryScale[a.positions[first + token]] : 1.f;
        float2 total = make_float2(0.f, 0.f);
#pragma unroll
        for (int k = 0; k < WARPS; k++) {
          const float2 v = *reinterpret_cast<const float2*>(&sums[k][token][channel]);
          total.x += v.x;
          total.y += v.y;
        }
        T* target = static_cast<T*>(a.qOut) + (static_cast<size_t>(first + token) * a.heads + head) * outWidth;
        *reinterpret_cast<uint32_t*>(target + part * CHANNELS + channel) = pack<T>(total.x * scale, total.y * scale);
      }
      __syncthreads();
    }
    if (part == 0) {
      for (int i = threadIdx.x; i < rows * (a.rope / 2); i += 32 * WARPS) {
        const int row = i / (a.rope / 2), pair = i % (a.rope / 2), position = a.positions[row];
        const float scale = a.hasQueryScale ? a.queryScale[position] : 1.f;
        const int2 channel = channelsOf(pair, a.rope, a.interleaved);
        const size_t at = static_cast<size_t>(row) * a.heads + head;
        const float* source = a.q + at * width + a.nope;
        T* target = static_cast<T*>(a.qOut) + at * outWidth + a.latent;
        const float* table = a.rotary + static_cast<size_t>(position) * a.rope;
        const float2 turned = rotated(source[channel.x], source[channel.y], table, pair, a.rope);
        target[channel.x] = narrow<T>(turned.x * scale);
        target[channel.y] = narrow<T>(turned.y * scale);
      }
    }
    prefetchValues(a, head, part, parts);
  }
};

template <typename T, int STEPS> __device__ __forceinline__ void fused(const FusedArguments& a) {
  letNextBegin();
  if (blockIdx.x >= a.maxRows) {
    Absorb<T, STEPS>::run(a, blockIdx.x - a.maxRows);
    return;
  }
  waitForEarlier();
  if (blockIdx.x >= *a.rowCount) return;
  append(a.latents, a.normWeight, a.positions, a.rotary, a.slots, a.cache, blockIdx.x, a.latent, a.rope, a.epsilon,
         a.interleaved, a.cacheDtype, a.cacheRows);
}

}  // namespace flashmla

#define FUSED(T, STEPS)                                                                                                \
  extern "C" __global__ void __launch_bounds__(32 * flashmla::WARPS) mlaPrologueFused_##T##_##STEPS(                   \
      const float* q, const float* latents, const float* normWeight, const int* positions, const int* slots,           \
      const float* rotary, const float* queryScale, const void* kvB, uint8_t* cache, void* qOut, const int* rowCount,  \
      int maxRows, int heads, int nope, int rope, int value, int latent, int interleaved, int hasQueryScale,           \
      int cacheDtype, int cacheRows, int prefetches, float epsilon) {                                                  \
    flashmla::fused<flashmla::T, STEPS>({q, latents, normWeight, positions, slots, rotary, queryScale, kvB, cache,     \
                                         qOut, rowCount, maxRows, heads, nope, rope, value, latent, interleaved,       \
                                         hasQueryScale, cacheDtype, cacheRows, prefetches, epsilon});                  \
  }

FUSED(bf16, 1)
FUSED(bf16, 2)
FUSED(bf16, 3)
FUSED(f16, 1)
FUSED(f16, 2)
FUSED(f16, 3)
