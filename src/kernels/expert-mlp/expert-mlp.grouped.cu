// expert-mlp for many rows in bf16, for Ampere and newer: mma.sync, three stages of 64 inputs by cp.async. A block multiplies a unit,
// at most 64 pairs of one expert, with 128 weight rows: 64 of gate and the same of up, or 128 of down. Pairs are gathered as
// they are copied.
#include "../common/elements.cuh"

namespace flashmla {

constexpr int PAIRS = 64;
constexpr int WEIGHTS = 128;
constexpr int DEPTH = 64;
constexpr int STAGES = 3;
/** An odd number of 16-byte units, so that the 8 rows of a matrix lie in different banks. */
constexpr int PITCH = DEPTH * 2 + 16;
constexpr int STAGE_BYTES = (PAIRS + WEIGHTS) * PITCH;

/** What expertMlpPlan left; see expert-mlp.cu. */
struct Plan {
  const int* memory;
  int most;
  __device__ __forceinline__ int units() const { return memory[0]; }
  __device__ __forceinline__ int expert(int unit) const { return memory[1 + unit]; }
  __device__ __forceinline__ int first(int unit) const { return memory[1 + most + unit]; }
  __device__ __forceinline__ int count(int unit) const { return memory[1 + 2 * most + unit]; }
  __device__ __forceinline__ int pair(int position) const { return memory[1 + 3 * most + position]; }
};

/** Products of a block: sums[i][j] is the tile of pairs 16 i and weight rows 8 j of the warp. */
struct Tile {
  const bf16* x[2];
  const bf16* weights[4];
  bool hasX[2], hasWeights[4];
  int inputs;

  /** Starts the copies of inputs `from`… of all rows: a thread has two rows of pairs and four of weights, 16 bytes each. */
  __device__ __forceinline__ void copy(uint32_t stage, int from) const {
    const int row = threadIdx.x / 8, input = from + threadIdx.x % 8 * 8;
    const uint32_t target = stage + row * PITCH + threadIdx.x % 8 * 16;
#pragma unroll
    for (int i = 0; i < 2; i++) copyAsync16(target + i * 32 * PITCH, x[i] + input, hasX[i] && input < inputs);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      copyAsync16(target + (PAIRS + i * 32) * PITCH, weights[i] + input, hasWeights[i] && input < inputs);
    }
  }

  /** `rowOf(n)` is the row among the block's weights of the warp's n-th group of 8. */
  template <typename RowOf>
  __device__ __forceinline__ void multiply(uint32_t memory, float (&sums)[2][4][4], const RowOf& rowOf) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, steps = (inputs + DEPTH - 1) / DEPTH;
    for (int step = 0; step < STAGES - 1; step++) {
      if (step < steps) copy(memory + step * STAGE_BYTES, step * DEPTH);
      commitCopies();
    }
    for (int step = 0; step < steps; step++) {
      waitCopies<STAGES - 2>();
      __syncthreads();
      const int next = step + STAGES - 1;
      if (next < steps) copy(memory + next % STAGES * STAGE_BYTES, next * DEPTH);
      commitCopies();
      const uint32_t stage = memory + step % STAGES * STAGE_BYTES;
#pragma unroll
      for (int k = 0; k < DEPTH; k += 16) {
        uint32_t a[2][4], b[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int row = warp / 4 * 32 + i * 16 + lane % 16;
          loadMatrices(a[i], stage + row * PITCH + (k + lane / 16 * 8) * 2);
        }
#pragma unroll
        for (int pair = 0; pair < 2; pair++) {
          const int row = PAIRS + rowOf(2 * pair + lane / 16) + lane % 8;
          loadMatrices(b[pair], stage + row * PITCH + (k + lane / 8 % 2 * 8) * 2);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
          for (int j = 0; j < 4; j++) flashmla::multiply<bf16>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }
};

}  // namespace flashmla

/** out[pair] = silu(gate · x) · (up · x) in bf16; blocks are units within tiles of 64 outputs. */
extern "C" __global__ void __launch_bounds__(256, 2)
    expertMlpGroupedGateUp(const flashmla::bf16* x, const flashmla::bf16* gate, const flashmla::bf16* up, const int* planMemory,
                           flashmla::bf16* out, int inputs, int outputs, int perToken, int expertRows, int most) {
  using namespace flashmla;
  extern __shared__ __align__(128) uint8_t memory[];
  letNextBegin();
  waitForEarlier();
  const Plan plan{planMemory, most};
  const int unit = blockIdx.x % most, firstOutput = blockIdx.x / most * 64;
  if (unit >= plan.units()) return;
  const int count = plan.count(unit), first = plan.first(unit);
  const size_t expert = static_cast<size_t>(plan.expert(unit)) * expertRows;
  Tile tile;
  tile.inputs = inputs;
  const int row = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    tile.hasX[i] = row + i * 32 < count;
    tile.x[i] = x + static_cast<size_t>(tile.hasX[i] ? plan.pair(first + row + i * 32) / perToken : 0) * inputs;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int output = firstOutput + i % 2 * 32 + row;
    tile.hasWeights[i] = output < outputs;
    tile.weights[i] = (i < 2 ? gate : up) + (expert + (tile.hasWeights[i] ? output : 0)) * inputs;
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = warp % 4 * 16;
  float sums[2][4][4] = {};
  // Groups 0 and 1 are gate, 2 and 3 the same outputs of up.
  tile.multiply(sharedAddress(memory), sums, [&](int n) { return n / 2 * 64 + column + n % 2 * 8; });
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int at = warp / 4 * 32 + i * 16 + half * 8 + lane / 4;
      if (at >= count) continue;
      bf16* target = out + static_cast<size_t>(plan.pair(first + at)) * outputs;
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const int output = firstOutput + column + j * 8 + lane % 4 * 2;
        if (output >= outputs) continue;
        const float *g = &sums[i][j][half * 2], *u = &sums[i][j + 2][half * 2];
        const float low = g[0] / (1.f + __expf(-g[0])) * u[0], high = g[1] / (1.f + __expf(-g[1])) * u[1];
        *reinterpret_cast<uint32_t*>(target + output) = pack<bf16>(low, high);
      }
    }
  }
}

/** out[pair] = down · x[pair] in float32; blocks are units within tiles of 128 outputs. */
extern "C" __global__ void __launch_bounds__(256, 2)
    expertMlpGroupedDown(const flashmla::bf16* x, const flashmla::bf16* down, const int* planMemory, float* out, int inputs,
                         int outputs, int most) {
  using namespace flashmla;
  extern __shared__ __align__(128) uint8_t memory[];
  letNextBegin();
  waitForEarlier();
  const Plan plan{planMemory, most};
  const int unit = blockIdx.x % most, firstOutput = blockIdx.x / most * WEIGHTS;
  if (unit >= plan.units()) return;
  const int count = plan.count(unit), first = plan.first(unit);
  const size_t expert = static_cast<size_t>(plan.expert(unit)) * outputs;
  Tile tile;
  tile.inputs = inputs;
  const int row = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    tile.hasX[i] = row + i * 32 < count;
    tile.x[i] = x + static_cast<size_t>(tile.hasX[i] ? plan.pair(first + row + i * 32) : 0) * inputs;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int output = firstOutput + i * 32 + row;
    tile.hasWeights[i] = output < outputs;
    tile.weights[i] = down + (expert + (tile.hasWeights[i] ? output : 0)) * inputs;
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = warp % 4 * 32;
  float sums[2][4][4] = {};
  tile.multiply(sharedAddress(memory), sums, [&](int n) { return column + n * 8; });
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int at = warp / 4 * 32 + i * 16 + half * 8 + lane / 4;
      if (at >= count) continue;
      float* target = out + static_cast<size_t>(plan.pair(first + at)) * outputs;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int output = firstOutput + column + j * 8 + lane % 4 * 2;
        if (output < outputs) *reinterpret_cast<float2*>(target + output) = make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
      }
    }
  }
}
