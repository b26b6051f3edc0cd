// mlaEpilogue after merged results, with results and weights in the same 16 bits, for Ampere and newer (mma.sync): a block takes
// TILES · 16 rows of one head's W_UV for all tokens. Its weights are in registers before it waits for attention.
#include "../common/elements.cuh"

namespace flashmla {

constexpr int WARPS = 4;
/** Tokens of a pass over the weights in registers. */
constexpr int TOKENS = 8;

struct FusedArguments {
  const void* attended;
  const int* batchCount;
  const void* kvB;
  void* out;
  int heads, sQ, counted, tokens, nope, value, outDtype;
};

/** Warps share the latent width: CHUNKS · 32 channels each. */
template <typename T, int CHUNKS, int TILES> struct Project {
  static constexpr int LATENT = WARPS * CHUNKS * 32;

  /** Lane (g = lane / 4, q = lane % 4) has channels 8q … 8q + 7 of every chunk, of rows g and g + 8 of every tile. */
  static __device__ __forceinline__ void loadWeights(const T* base, int rows, uint4 (&w)[TILES][2][CHUNKS]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = min(m * 16 + half * 8 + lane / 4, rows - 1);
        const T* source = base + static_cast<size_t>(row) * LATENT + warp * (CHUNKS * 32) + lane % 4 * 8;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) w[m][half][c] = loadConstant16(source + c * 32);
      }
    }
  }

  static __device__ void run(const FusedArguments& a) {
    __shared__ float sums[WARPS][TOKENS][TILES * 16 + 1];
    letNextBegin();
    const int parts = (a.value + TILES * 16 - 1) / (TILES * 16), part = blockIdx.x % parts, head = blockIdx.x / parts;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = part * TILES * 16;
    const int rows = min(TILES * 16, a.value - first);
    const T* weights = static_cast<const T*>(a.kvB) +
                       (static_cast<size_t>(head) * (a.nope + a.value) + a.nope + first) * LATENT;
    uint4 w[TILES][2][CHUNKS];
    loadWeights(weights, rows, w);
    waitForEarlier();
    const int tokens = min(a.tokens, a.counted ? *a.batchCount * a.sQ : a.tokens);
    // Results of tokens that are not in use are loaded with the others, before their number is known, and go nowhere.
    for (int start = 0; start < a.tokens; start += TOKENS) {
      const int token = start + lane / 4;
      uint4 x[CHUNKS];
#pragma unroll
      for (int c = 0; c < CHUNKS; c++) {
        x[c] = make_uint4(0, 0, 0, 0);
        if (token < a.tokens) {
          const T* source = static_cast<const T*>(a.attended) + (static_cast<size_t>(token) * a.heads + head) * LATENT +
                            warp * (CHUNKS * 32) + lane % 4 * 8;
          // Written by the launch before this one: not by the read-only path.
          x[c] = __ldcg(reinterpret_cast<const uint4*>(source + c * 32));
        }
      }
      float out[TILES][4] = {};
#pragma unroll
      for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
        for (int m = 0; m < TILES; m++) {
          const uint32_t low[4] = {w[m][0][c].x, w[m][1][c].x, w[m][0][c].y, w[m][1][c].y};
          const uint32_t high[4] = {w[m][0][c].z, w[m][1][c].z, w[m][0][c].w, w[m][1][c].w};
          multiply<T>(out[m], low, x[c].x, x[c].y);
          multiply<T>(out[m], high, x[c].z, x[c].w);
        }
      }
#pragma unroll
      for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[warp][lane % 4 * 2 + i % 2][m * 16 + lane / 4 + i / 2 * 8] = out[m][i];
      }
      __syncthreads();
      const int count = min(TOKENS, tokens - start);
      for (int i = threadIdx.x; i < count * rows; i += 32 * WARPS) {
        const int t = i / rows, row = i % rows;
        float total = 0.f;
#pragma unroll
        for (int k = 0; k < WARPS; k++) total += sums[k][t][row];
        storeStored(a.out, a.outDtype, (static_cast<size_t>(start + t) * a.heads + head) * a.value + first + row, total);
      }
      __syncthreads();
    }
  }
};

}  // namespace flashmla

#define FUSED(T, LATENT, TILES)                                                                                        \
  extern "C" __global__ void __launch_bounds__(32 * flashmla::WARPS) mlaEpilogueFused_##T##_##LATENT##_##TILES(        \
      const void* attended, const int* batchCount, const void* kvB, void* out, int heads, int sQ, int counted,         \
      int tokens, int nope, int value, int outDtype) {                                                                 \
    flashmla::Project<flashmla::T, LATENT / 128, TILES>::run(                                                          \
        {attended, batchCount, kvB, out, heads, sQ, counted, tokens, nope, value, outDtype});                          \
  }

#define WIDTHS(T)                                                                                                      \
  FUSED(T, 128, 1)                                                                                                     \
  FUSED(T, 256, 1)                                                                                                     \
  FUSED(T, 512, 1)                                                                                                     \
  FUSED(T, 128, 2)                                                                                                     \
  FUSED(T, 256, 2)                                                                                                     \
  FUSED(T, 512, 2)

WIDTHS(bf16)
WIDTHS(f16)
