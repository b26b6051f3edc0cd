// mlaPrologue for Ampere and newer. Every kernel takes float32 queries; W_UK is in any stored form, and queries leave in float32 or
// 16 bits. All sums are float32.
#include "../common/append.cuh"

namespace flashmla {

/** Tokens that share one pass over a head's W_UK. */
constexpr int TOKENS = 8;
/** Latent channels of a block: two a thread. */
constexpr int CHANNELS = 256;

/** Queries of one token a block, rotated and scaled: [q_n ; RoPE(q_r)] · scale. `out` may be `q`. */
template <typename O>
__device__ void rotateQueries(const float* q, const int* positions, const float* rotary, const float* queryScale, O* out,
                              int row, int heads, int nope, int rope, int interleaved) {
  const int width = nope + rope;
  const float scale = queryScale == nullptr ? 1.f : queryScale[positions[row]];
  const float* table = rotary + static_cast<size_t>(positions[row]) * rope;
  const size_t start = static_cast<size_t>(row) * heads * width;
  for (int i = threadIdx.x; i < heads * nope; i += blockDim.x) {
    const size_t at = start + i / nope * width + i % nope;
    out[at] = narrow<O>(q[at] * scale);
  }
  for (int i = threadIdx.x; i < heads * (rope / 2); i += blockDim.x) {
    const size_t at = start + i / (rope / 2) * width + nope;
    const int pair = i % (rope / 2);
    const int2 channel = channelsOf(pair, rope, interleaved);
    const float2 turned = rotated(q[at + channel.x], q[at + channel.y], table, pair, rope);
    out[at + channel.x] = narrow<O>(turned.x * scale);
    out[at + channel.y] = narrow<O>(turned.y * scale);
  }
}

struct AbsorbArguments {
  const float* q;
  const int* positions;
  const float *rotary, *queryScale;
  const void* kvB;
  void* qOut;
  const int* rowCount;
  int heads, nope, rope, value, latent, interleaved, hasQueryScale, blocks;
};

/**
 * Queries absorbed through W_UK: a block takes 256 latent channels of one head for 8 tokens, a thread 2 of them. Dynamic shared
 * memory: [8, nope] scaled queries.
 */
template <typename W, typename O> __device__ void absorb(const AbsorbArguments& a) {
  extern __shared__ float queries[];
  const int parts = (a.latent + CHANNELS - 1) / CHANNELS;
  const int part = blockIdx.x % parts, head = blockIdx.x / parts % a.heads, first = blockIdx.x / (parts * a.heads) * TOKENS;
  const int rows = min(TOKENS, *a.rowCount - first);
  if (rows <= 0) return;
  const int width = a.nope + a.rope, outWidth = a.latent + a.rope;
  O* const out = static_cast<O*>(a.qOut) + (static_cast<size_t>(first) * a.heads + head) * outWidth;
  const float* const q = a.q + (static_cast<size_t>(first) * a.heads + head) * width;
  for (int i = threadIdx.x; i < TOKENS * a.nope; i += blockDim.x) {
    const int row = i / a.nope;
    float value = 0.f;
    if (row < rows) {
      const float scale = a.hasQueryScale ? a.queryScale[a.positions[first + row]] : 1.f;
      value = q[static_cast<size_t>(row) * a.heads * width + i % a.nope] * scale;
    }
    queries[i] = value;
  }
  if (part == 0) {
    for (int i = threadIdx.x; i < rows * (a.rope / 2); i += blockDim.x) {
      const int row = i / (a.rope / 2), pair = i % (a.rope / 2), position = a.positions[first + row];
      const float scale = a.hasQueryScale ? a.queryScale[position] : 1.f;
      const int2 channel = channelsOf(pair, a.rope, a.interleaved);
      const float* source = q + static_cast<size_t>(row) * a.heads * width + a.nope;
      O* target = out + static_cast<size_t>(row) * a.heads * outWidth + a.latent;
      const float* table = a.rotary + static_cast<size_t>(position) * a.rope;
      const float2 turned = rotated(source[channel.x], source[channel.y], table, pair, a.rope);
      target[channel.x] = narrow<O>(turned.x * scale);
      target[channel.y] = narrow<O>(turned.y * scale);
    }
  }
  __syncthreads();
  const int channel = part * CHANNELS + 2 * threadIdx.x;
  if (channel >= a.latent) return;
  const W* weights = static_cast<const W*>(a.kvB) + static_cast<size_t>(head) * (a.nope + a.value) * a.latent + channel;
  float sums[TOKENS][2] = {};
#pragma unroll 16
  for (int n = 0; n < a.nope; n++) {
    const float2 w = loadPair(weights + static_cast<size_t>(n) * a.latent);
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
      sums[t][0] += queries[t * a.nope + n] * w.x;
      sums[t][1] += queries[t * a.nope + n] * w.y;
    }
  }
  for (int t = 0; t < TOKENS; t++) {
    if (t >= rows) break;
    O* target = out + static_cast<size_t>(t) * a.heads * outWidth + channel;
    target[0] = narrow<O>(sums[t][0]);
    target[1] = narrow<O>(sums[t][1]);
  }
}

}  // namespace flashmla

extern "C" __global__ void __launch_bounds__(128)
    mlaPrologueAppend(const float* latents, const float* normWeight, const int* positions, const float* rotary,
                      const int* slots, uint8_t* cache, const int* rowCount, int latent, int rope, float epsilon,
                      int interleaved, int dtype, int cacheRows) {
  if (blockIdx.x >= *rowCount) return;
  flashmla::append(latents, normWeight, positions, rotary, slots, cache, blockIdx.x, latent, rope, epsilon, interleaved,
                   dtype, cacheRows);
}

#define ROTATE(name, O)                                                                                                \
  extern "C" __global__ void __launch_bounds__(256) name(                                                              \
      const float* q, const int* positions, const float* rotary, const float* queryScale, void* out,                   \
      const int* rowCount, int heads, int nope, int rope, int interleaved, int hasQueryScale) {                        \
    if (blockIdx.x >= *rowCount) return;                                                                               \
    flashmla::rotateQueries(q, positions, rotary, hasQueryScale ? queryScale : nullptr,                                \
                            static_cast<flashmla::O*>(out), blockIdx.x, heads, nope, rope, interleaved);               \
  }

#define ABSORB(name, W, O)                                                                                             \
  extern "C" __global__ void __launch_bounds__(flashmla::CHANNELS / 2) name(                                           \
      const float* q, const int* positions, const float* rotary, const float* queryScale, const void* kvB, void* qOut, \
      const int* rowCount, int heads, int nope, int rope, int value, int latent, int interleaved, int hasQueryScale,   \
      int weightDtype, int blocks) {                                                                                                    \
    flashmla::absorb<flashmla::W, flashmla::O>({q, positions, rotary, queryScale, kvB, qOut, rowCount, heads, nope,    \
                                                rope, value, latent, interleaved, hasQueryScale, blocks});             \
  }

namespace flashmla {
using f32 = float;
}

#define OUTPUT(O)                                                                                                      \
  ROTATE(mlaPrologueRotate_##O, O)                                                                                     \
  ABSORB(mlaPrologueAbsorb_bf16_##O, bf16, O)                                                                          \
  ABSORB(mlaPrologueAbsorb_f16_##O, f16, O)                                                                            \
  ABSORB(mlaPrologueAbsorb_f32_##O, f32, O)

OUTPUT(f32)
OUTPUT(f16)
OUTPUT(bf16)
