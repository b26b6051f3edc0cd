// mlaEpilogue for Ampere and newer: a block takes 8 tokens of one head and 32 rows of its W_UV. It merges the splits of those tokens
// (or takes them merged) into shared memory, and each warp multiplies 4 rows. All sums are float32.
#include "../common/elements.cuh"

namespace flashmla {

constexpr int TOKENS = 8;
constexpr int WARPS = 8;
constexpr int VALUES = 32;

struct EpilogueArguments {
  /** Partial results of ../common/mla-partials.ts, or attended values [tokens, heads, latent] when `splits` is 0. */
  const void* attended;
  const int* batchCount;
  const void* kvB;
  void* out;
  int latent, heads, sQ, splits, statsOffset, counted, tokens, nope, value, attendedDtype, outDtype;
};

/** The outputs of a row's splits, weighted and summed; zeros where all saw nothing. `row` counts within the sequence. */
__device__ void mergeRow(const EpilogueArguments& a, int sequence, int row, float* target) {
  const float* partials = static_cast<const float*>(a.attended);
  const size_t rows = static_cast<size_t>(a.sQ) * a.heads;
  const size_t result = static_cast<size_t>(sequence) * a.splits * rows + row;
  const float2* stats = reinterpret_cast<const float2*>(partials + a.statsOffset) + result;
  float top = NEGATIVE_INFINITY, sum = 0.f;
  for (int s = 0; s < a.splits; s++) {
    if (stats[s * rows].y > 0.f) top = fmaxf(top, stats[s * rows].x);
  }
  for (int s = 0; s < a.splits; s++) {
    if (stats[s * rows].y > 0.f) sum += stats[s * rows].y * exp2f(stats[s * rows].x - top);
  }
  const float inverse = sum > 0.f ? 1.f / sum : 0.f;
  for (int column = threadIdx.x % 32; column < a.latent; column += 32) {
    float value = 0.f;
    for (int s = 0; s < a.splits; s++) {
      const float2 stat = stats[s * rows];
      if (stat.y > 0.f) value += exp2f(stat.x - top) * inverse * partials[(result + s * rows) * a.latent + column];
    }
    target[column] = value;
  }
}

template <typename W> __device__ void epilogue(const EpilogueArguments& a) {
  extern __shared__ __align__(16) float attended[];
  const int parts = (a.value + VALUES - 1) / VALUES;
  const int part = blockIdx.x % parts, head = blockIdx.x / parts % a.heads, first = blockIdx.x / (parts * a.heads) * TOKENS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int live = a.counted ? *a.batchCount * a.sQ : a.tokens;
  const int tokens = min(TOKENS, min(live, a.tokens) - first);
  if (tokens <= 0) return;
  const int token = first + warp;
  float* const mine = attended + warp * a.latent;
  if (warp >= tokens) {
    for (int i = lane; i < a.latent; i += 32) mine[i] = 0.f;
  } else if (a.splits > 0) {
    mergeRow(a, token / a.sQ, token % a.sQ * a.heads + head, mine);
  } else {
    const size_t row = (static_cast<size_t>(token) * a.heads + head) * a.latent;
    for (int i = lane; i < a.latent; i += 32) mine[i] = loadStored(a.attended, a.attendedDtype, row + i);
  }
  __syncthreads();
  const int end = min(a.value, (part + 1) * VALUES);
  for (int v = part * VALUES + warp; v < end; v += WARPS) {
    const size_t weightRow = static_cast<size_t>(head) * (a.nope + a.value) + a.nope + v;
    const W* weights = static_cast<const W*>(a.kvB) + weightRow * a.latent;
    float sums[TOKENS] = {};
#pragma unroll 4
    for (int c = lane * 4; c < a.latent; c += 128) {
      const float4 w = loadFour(weights + c);
#pragma unroll
      for (int t = 0; t < TOKENS; t++) {
        const float4 x = *reinterpret_cast<const float4*>(attended + t * a.latent + c);
        sums[t] += x.x * w.x + x.y * w.y + x.z * w.z + x.w * w.w;
      }
    }
#pragma unroll
    for (int t = 0; t < TOKENS; t++) sums[t] = sumOfWarp(sums[t]);
    float result = sums[0];
#pragma unroll
    for (int t = 1; t < TOKENS; t++) result = lane == t ? sums[t] : result;
    if (lane < tokens) {
      storeStored(a.out, a.outDtype, (static_cast<size_t>(first + lane) * a.heads + head) * a.value + v, result);
    }
  }
}

}  // namespace flashmla

#define EPILOGUE(name, W)                                                                                              \
  extern "C" __global__ void __launch_bounds__(32 * flashmla::WARPS) name(                                             \
      const void* attended, const int* batchCount, const void* kvB, void* out, int latent, int heads, int sQ,          \
      int splits, int statsOffset, int counted, int tokens, int nope, int value, int attendedDtype, int outDtype) {    \
    flashmla::epilogue<W>({attended, batchCount, kvB, out, latent, heads, sQ, splits, statsOffset, counted, tokens,    \
                           nope, value, attendedDtype, outDtype});                                                     \
  }

EPILOGUE(mlaEpilogue_bf16, flashmla::bf16)
EPILOGUE(mlaEpilogue_f16, flashmla::f16)
EPILOGUE(mlaEpilogue_f32, float)
