// mlaEpilogue after merged results on Hopper, with results and weights in the same 16 bits: a block takes 64 rows of one head's W_UV for
// some tokens, or all. They are on their way to shared memory, in boxes of the copy engine, before the block waits for attention; a
// warp multiplies 16 of them, over the whole latent width, as the rows of mma.sync's first operand. With many tokens, two warps
// share the rows.
#include "../common/elements.cuh"
#include "../common/sm90.cuh"

namespace flashmla {

constexpr int ROWS = 64;

struct FusedArguments {
  const void* attended;
  const int* batchCount;
  const void* kvB;
  void* out;
  int heads, sQ, counted, tokens, nope, value, outDtype;
  /** Tokens of a block. */
  int each;
};

template <typename T, int LATENT, int TOKENS> struct Project {
  static constexpr int BOXES = LATENT / 64;
  /** Bytes from one token's result to the next: 16 more than it has, so that eight rows lie in different banks. */
  static constexpr int PITCH = LATENT * 2 + 16;
  /** Warps that share 16 rows, and groups of 8 tokens that each multiplies. */
  static constexpr int SHARING = TOKENS > 8 ? 2 : 1;
  static constexpr int GROUPS = TOKENS / 8 / SHARING;
  static constexpr int WARPS = ROWS / 16 * SHARING;
  /** Independent sums of a group, so that products need not wait for each other. */
  static constexpr int SUMS = 4 / GROUPS;
  /** Boxes whose weights are in registers before the block waits for attention. */
  static constexpr int KEPT = TOKENS > 8 ? 0 : BOXES / 2;
  static constexpr int BLOCKS = TOKENS > 8 ? 2 : 3;

  struct Shared {
    uint8_t weights[BOXES][BOX_BYTES];
    uint8_t attended[TOKENS * PITCH];
    uint64_t full[BOXES];
  };

  static __device__ __forceinline__ void fetch(const FusedArguments& a, const CUtensorMap* map, Shared& shared, int head, int part) {
    for (int box = 0; box < BOXES; box++) barrierInit(sharedAddress(&shared.full[box]), 1);
    barrierInitFence();
#pragma unroll
    for (int box = 0; box < BOXES; box++) {
      const uint32_t barrier = sharedAddress(&shared.full[box]);
      barrierExpect(barrier, BOX_BYTES);
      copyBox(sharedAddress(shared.weights[box]), map, box * 64, head * (a.nope + a.value) + a.nope + part * ROWS, barrier);
    }
  }

  /** Results of TOKENS tokens from `first` on to shared memory; of tokens not in use too, whose number is not known yet. */
  static __device__ __forceinline__ void loadAttended(const FusedArguments& a, Shared& shared, int head, int first, int end) {
    constexpr int UNITS = LATENT / 8, EACH = TOKENS * UNITS / (32 * WARPS);
    uint4 v[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
      const int i = threadIdx.x + k * 32 * WARPS, token = first + i / UNITS;
      v[k] = make_uint4(0, 0, 0, 0);
      if (token < end) {
        // Written by the launch before this one: not by the read-only path.
        v[k] = __ldcg(reinterpret_cast<const uint4*>(static_cast<const T*>(a.attended) +
                                                     (static_cast<size_t>(token) * a.heads + head) * LATENT) + i % UNITS);
      }
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
      const int i = threadIdx.x + k * 32 * WARPS;
      *reinterpret_cast<uint4*>(shared.attended + i / UNITS * PITCH + i % UNITS * 16) = v[k];
    }
  }

  /** The weights of 16 rows and 16 channels as an operand. */
  static __device__ __forceinline__ void loadWeight(Shared& shared, int warp, int step, uint32_t (&weight)[4]) {
    const int lane = threadIdx.x % 32;
    loadMatrices(weight, swizzled(sharedAddress(shared.weights[step / 4]), warp * 16 + lane / 8 % 2 * 8 + lane % 8, step % 4 * 2 + lane / 16));
  }

  static __device__ __forceinline__ void run(const FusedArguments& a, const CUtensorMap* map) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    letNextBegin();
    const int parts = a.value / ROWS, part = blockIdx.x % parts, head = blockIdx.x / parts % a.heads;
    const int begin = blockIdx.x / (parts * a.heads) * a.each, end = min(begin + a.each, a.tokens);
    const int warp = threadIdx.x / 32 % (ROWS / 16), group = threadIdx.x / (2 * ROWS) * GROUPS, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) fetch(a, map, shared, head, part);
    // There before the program runs.
    const int tokens = a.counted ? min(end, __ldcg(a.batchCount) * a.sQ) : end;
    uint32_t kept[KEPT > 0 ? KEPT * 4 : 1][4];
    if constexpr (KEPT > 0) {
      __syncthreads();
#pragma unroll
      for (int step = 0; step < KEPT * 4; step++) {
        if (step % 4 == 0) barrierWait(sharedAddress(&shared.full[step / 4]), 0);
        loadWeight(shared, warp, step, kept[step]);
      }
    }
    waitForEarlier();
    for (int first = begin; first < end; first += TOKENS) {
      loadAttended(a, shared, head, first, end);
      __syncthreads();
      float out[GROUPS][SUMS][4] = {};
#pragma unroll
      for (int step = 0; step < BOXES * 4; step += 2) {
        if (step % 4 == 0 && step / 4 >= KEPT) barrierWait(sharedAddress(&shared.full[step / 4]), 0);
        uint32_t x[GROUPS][4];
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
          loadMatrices(x[g], sharedAddress(shared.attended) + ((group + g) * 8 + lane % 8) * PITCH + (step * 2 + lane / 8) * 16);
        }
#pragma unroll
        for (int k = 0; k < 2; k++) {
          uint32_t weight[4];
          if (step / 4 < KEPT) {
#pragma unroll
            for (int i = 0; i < 4; i++) weight[i] = kept[step / 4 < KEPT ? step + k : 0][i];
          } else {
            loadWeight(shared, warp, step + k, weight);
          }
#pragma unroll
          for (int g = 0; g < GROUPS; g++) multiply<T>(out[g][(step + k) % SUMS], weight, x[g][k * 2], x[g][k * 2 + 1]);
        }
      }
#pragma unroll
      for (int g = 0; g < GROUPS; g++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float total = out[g][0][i];
#pragma unroll
          for (int s = 1; s < SUMS; s++) total += out[g][s][i];
          const int token = first + (group + g) * 8 + lane % 4 * 2 + i % 2, row = part * ROWS + warp * 16 + lane / 4 + i / 2 * 8;
          if (token < tokens) {
            storeStored(a.out, a.outDtype, (static_cast<size_t>(token) * a.heads + head) * a.value + row, total);
          }
        }
      }
      if (first + TOKENS < end) __syncthreads();
    }
  }
};

}  // namespace flashmla

#define PROJECT(T, LATENT, TOKENS)                                                                                     \
  extern "C" __global__ void __launch_bounds__(32 * flashmla::Project<flashmla::T, LATENT, TOKENS>::WARPS, flashmla::Project<flashmla::T, LATENT, TOKENS>::BLOCKS) \
      mlaEpilogueProject_##T##_##LATENT##_##TOKENS(                                                                    \
      const __grid_constant__ CUtensorMap map, const void* attended, const int* batchCount, const void* kvB,           \
      void* out, int heads, int sQ, int counted, int tokens, int nope, int value, int outDtype, int each) {            \
    flashmla::Project<flashmla::T, LATENT, TOKENS>::run(                                                               \
        {attended, batchCount, kvB, out, heads, sQ, counted, tokens, nope, value, outDtype, each}, &map);              \
  }

#define WIDTHS(T)      \
  PROJECT(T, 256, 8)   \
  PROJECT(T, 512, 8)   \
  PROJECT(T, 256, 16)  \
  PROJECT(T, 512, 16)  \
  PROJECT(T, 256, 32)  \
  PROJECT(T, 512, 32)

WIDTHS(bf16)
WIDTHS(f16)
