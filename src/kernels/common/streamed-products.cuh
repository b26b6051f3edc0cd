// Products of a few rows of float32 activations with weights that stream from memory once, for Ampere and newer. The weights are the
// tensor core's M, the activations its N: 8 rows of them cost what one costs. Activations are split into three bf16 terms whose
// sum is the float32 value, weights into one (bf16), two (f16) or three (f32), so products are exact and sums float32.
//
// A block has 8 warps, which take the steps of 64 inputs of a tile of outputs in turns and add their sums up in a fixed order: a
// row's bits depend neither on its neighbours nor on the grid. Each lane copies the weights that it will multiply itself, two
// steps ahead and across tiles, so the copies need no barrier, and may start before the launch that makes the activations ends.
#pragma once
#include "elements.cuh"

namespace flashmla {

constexpr int STEP = 64;
constexpr int WARPS = 8;

template <typename W> constexpr int TERMS = 1;
template <> constexpr int TERMS<f16> = 2;
template <> constexpr int TERMS<float> = 3;
constexpr int X_TERMS = 3;

/** bf16 pairs whose sum is the pair (a, b), as far as their number allows; three hold every bit of a float32. */
template <int COUNT> __device__ __forceinline__ void split(float a, float b, uint32_t (&terms)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    terms[i] = pack<bf16>(a, b);
    if (i + 1 == COUNT) break;
    const float2 taken = unpack<bf16>(terms[i]);
    a -= taken.x;
    b -= taken.y;
  }
}

__device__ __forceinline__ uint4 loadShared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}

/** The terms of 8 weights at `address`, in pairs; `apart` bytes lie between their 16-byte pieces where there are two. */
template <typename W> __device__ __forceinline__ void loadWeights(uint32_t address, int, uint32_t (&terms)[TERMS<W>][4]) {
  const uint4 v = loadShared16(address);
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (TERMS<W> == 1) {
      terms[0][i] = words[i];
    } else {
      const float2 pair = unpack<W>(words[i]);
      uint32_t both[TERMS<W>];
      split(pair.x, pair.y, both);
#pragma unroll
      for (int term = 0; term < TERMS<W>; term++) terms[term][i] = both[term];
    }
  }
}

template <> __device__ __forceinline__ void loadWeights<float>(uint32_t address, int apart, uint32_t (&terms)[3][4]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const uint4 v = loadShared16(address + half * apart);
    uint32_t first[3], second[3];
    split(__uint_as_float(v.x), __uint_as_float(v.y), first);
    split(__uint_as_float(v.z), __uint_as_float(v.w), second);
#pragma unroll
    for (int term = 0; term < 3; term++) {
      terms[term][2 * half] = first[term];
      terms[term][2 * half + 1] = second[term];
    }
  }
}

/** 8 values of a row of activations; rows need not be aligned. */
__device__ __forceinline__ void loadActivations(const float* from, bool aligned, float (&v)[8]) {
  if (aligned) {
    const float4 a = *reinterpret_cast<const float4*>(from), b = *reinterpret_cast<const float4*>(from + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = from[i];
  }
}

template <int R> constexpr int SUM_PITCH = R * 16 + 4;

#if __CUDA_ARCH__ >= 900
// Hopper: a ninth warp has the copy engine bring rounds of 512 inputs of every row of the tile; streamed-products.cuda.ts has the
// same numbers.
constexpr bool BULK = true;
constexpr int ROUND = STEP * WARPS;
/** Rows lie half a bank cycle apart, so that the 8 lanes that read two rows meet no bank twice. */
template <typename W> constexpr int ROW_PITCH = ROUND * sizeof(W) + 64;
template <typename W, int R> constexpr int STAGE_BYTES = R * 16 * ROW_PITCH<W>;
template <typename W, int R> constexpr int STAGES = R * sizeof(W) > 6 ? 2 : 12 / (R * sizeof(W));
/** Arrivals that free a stage: a lane's for its warp. racecheck takes the reads of the other lanes for races then: it gets all lanes'. */
#ifdef SANITIZED
constexpr int FREEING_LANES = 32;
#else
constexpr int FREEING_LANES = 1;
#endif
#else
// A warp copies what it multiplies itself: no barrier, and the copies of each lane are its own.
constexpr bool BULK = false;
template <typename W, int R> constexpr int STEP_BYTES = R * 4 * (sizeof(W) / 2) * 512;
template <typename W, int R> constexpr int STAGE_BYTES = WARPS * STEP_BYTES<W, R>;
template <typename W, int R> constexpr int STAGES = 2;
#endif

constexpr int STREAM_THREADS = (WARPS + (BULK ? 1 : 0)) * 32;

/** Waits for the other threads that multiply. */
__device__ __forceinline__ void meetMultipliers() { asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory"); }

/** What the warps of a block left of a tile: sums by column and output, and sums of squares by column. */
template <int R, int NT> struct TileSums {
  const float *sums, *squares;
  __device__ __forceinline__ float at(int column, int output) const {
    float sum = 0.f;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) sum += sums[(warp * NT * 8 + column) * SUM_PITCH<R> + output];
    return sum;
  }
  /** 1 / √(mean(x²) + ε) of a column's row. */
  __device__ __forceinline__ float inverseNorm(int column, int inputs, float epsilon) const {
    float sum = 0.f;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) sum += squares[warp * NT * 8 + column];
    return 1.f / sqrtf(sum / inputs + epsilon);
  }
};

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void initBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void arriveAt(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void arriveExpecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void waitFor(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}" ::"r"(barrier), "r"(parity) : "memory");
}

__device__ __forceinline__ void copyBulk(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
               "l"(source), "r"(bytes), "r"(barrier)
               : "memory");
}

/** The ninth warp: a lane brings a row's share of each round. */
template <typename W, int R, typename Task>
__device__ __forceinline__ void bringWeights(const Task& task, uint32_t ring, uint32_t full, uint32_t empty) {
  const int lane = threadIdx.x % 32, tiles = task.tiles(), steps = task.steps();
  int slot = 0, parity = 1;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    for (int step = 0; step < steps; step += WARPS) {
      waitFor(empty + 8 * slot, parity);
      const W* source = lane < R * 16 ? task.weights(tile, step, lane / 16, lane % 16) : nullptr;
      const int bytes = source != nullptr ? min(ROUND, task.left(step)) * static_cast<int>(sizeof(W)) : 0;
      int all = bytes;
#pragma unroll
      for (int far = 16; far > 0; far /= 2) all += __shfl_xor_sync(~0u, all, far);
      if (lane == 0) arriveExpecting(full + 8 * slot, all);
      __syncwarp();
      if (bytes > 0) copyBulk(ring + slot * STAGE_BYTES<W, R> + lane * ROW_PITCH<W>, source, bytes, full + 8 * slot);
      if (++slot == STAGES<W, R>) slot = 0, parity ^= 1;
    }
  }
}
#endif

/**
 * Runs a block's tiles of R · 16 outputs by NT · 8 columns (rows of activations). A task says
 *   EARLY                                   whether its weights are known before the launches before it end
 *   begin()                                 reads what those left
 *   tiles(), steps()                        how many there are, and steps of a tile
 *   weights(tile, step, part, output)       a row's weights from the step on; null for none. part < R, output < 16
 *   left(step)                              inputs of the row from the step on, which lie one after the other for 8 steps
 *   activations(tile, step, column)         the same of a row of x; null for none
 *   norm(step), aligned()                   weights that multiply x, or null; whether rows of x are aligned to 16 bytes
 *   finish(tile, sums)                      writes the outputs; called by all threads
 */
template <typename W, int R, int NT, typename Task> __device__ __forceinline__ void streamProducts(Task task) {
  extern __shared__ __align__(128) uint8_t memory[];
  constexpr int TW = TERMS<W>, STAGE = STAGE_BYTES<W, R>, COUNT = STAGES<W, R>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, within = lane % 4;
  const uint32_t base = sharedAddress(memory);
  float* sums = reinterpret_cast<float*>(memory + COUNT * STAGE);
  float* squares = sums + WARPS * NT * 8 * SUM_PITCH<R>;
  letNextBegin();
#if __CUDA_ARCH__ >= 900
  const uint32_t full = sharedAddress(squares + WARPS * NT * 8), empty = full + 8 * COUNT;
  if (threadIdx.x == 0) {
    for (int i = 0; i < COUNT; i++) initBarrier(full + 8 * i, 1), initBarrier(empty + 8 * i, WARPS * FREEING_LANES);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  if (task.left(task.steps() - 1) < STEP) {
    // Inputs past a row's end are multiplied by zeros: what lies there must be a number.
    for (int i = threadIdx.x; i < COUNT * STAGE / 16; i += blockDim.x) reinterpret_cast<uint4*>(memory)[i] = make_uint4(0, 0, 0, 0);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (warp == WARPS) {
    if (!Task::EARLY) {
      waitForEarlier();
      task.begin();
    }
    bringWeights<W, R>(task, base, full, empty);
    return;
  }
  waitForEarlier();
  task.begin();
  const int tiles = task.tiles(), steps = task.steps();
  const uint32_t mine = base + group * ROW_PITCH<W> + (warp * STEP + within * 8) * sizeof(W);
  constexpr int PART = 16 * ROW_PITCH<W>, HALF = 8 * ROW_PITCH<W>, APART = 16, INPUTS = 32 * sizeof(W);
  int parity = 0;
#else
  constexpr int PIECES = sizeof(W) / 2, BYTES = STEP_BYTES<W, R>;
  const uint32_t mine = base + warp * BYTES + lane * 16;
  constexpr int PART = 4 * PIECES * 512, HALF = PIECES * 512, APART = 512, INPUTS = 2 * PIECES * 512;
  if (!Task::EARLY) {
    waitForEarlier();
    task.begin();
  }
  const int tiles = task.tiles(), steps = task.steps();
  int fetchTile = blockIdx.x, fetchStep = warp;
  auto fetch = [&](int slot) {
    if (fetchStep < steps && fetchTile < tiles) {
      const int left = task.left(fetchStep);
#pragma unroll
      for (int part = 0; part < R; part++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const W* row = task.weights(fetchTile, fetchStep, part, half * 8 + group);
#pragma unroll
          for (int p = 0; p < 2; p++) {
            const int input = p * 32 + within * 8;
            const bool wanted = row != nullptr && input < left;
            const W* source = wanted ? row + input : task.anyWeights();
            const uint32_t target = mine + slot * STAGE + part * PART + p * INPUTS + half * HALF;
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++) copyAsync16(target + piece * 512, source + piece * 4, wanted);
          }
        }
      }
      fetchStep += WARPS;
      if (fetchStep >= steps) {
        fetchStep = warp;
        fetchTile += gridDim.x;
      }
    }
    commitCopies();
  };
#pragma unroll
  for (int slot = 0; slot < COUNT; slot++) fetch(slot);
  if (Task::EARLY) {
    waitForEarlier();
    task.begin();
  }
#endif
  const bool aligned = task.aligned(), isNormed = task.norm(0) != nullptr;
  float x[NT][2][8], w[2][8];
  // Activations are loaded a step ahead too: they come from far away, if only from the second-level cache.
  auto loadInputs = [&](int tile, int step) {
    const int left = task.left(step);
#pragma unroll
    for (int p = 0; p < 2; p++) {
      const int input = p * 32 + within * 8;
#pragma unroll
      for (int j = 0; j < NT; j++) {
        const float* row = task.activations(tile, step, j * 8 + group);
#pragma unroll
        for (int i = 0; i < 8; i++) x[j][p][i] = 0.f;
        if (row != nullptr && input < left) loadActivations(row + input, aligned, x[j][p]);
      }
#pragma unroll
      for (int i = 0; i < 8; i++) w[p][i] = 0.f;
      if (isNormed && input < left) loadActivations(task.norm(step) + input, true, w[p]);
    }
  };
  int slot = 0;
  if (warp < steps && static_cast<int>(blockIdx.x) < tiles) loadInputs(blockIdx.x, warp);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    float total[R][NT][4] = {}, square[NT] = {};
    // On Hopper a round is all warps', also those that have no step in it.
    for (int step = warp; step - (BULK ? warp : 0) < steps; step += WARPS) {
      if (step < steps) {
        uint32_t b[NT][2][X_TERMS][4];
        float squareOfStep[NT] = {};
#pragma unroll
        for (int p = 0; p < 2; p++) {
#pragma unroll
          for (int j = 0; j < NT; j++) {
            if (isNormed) {
#pragma unroll
              for (int i = 0; i < 8; i++) {
                squareOfStep[j] = fmaf(x[j][p][i], x[j][p][i], squareOfStep[j]);
                x[j][p][i] *= w[p][i];
              }
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
              uint32_t terms[X_TERMS];
              split(x[j][p][2 * i], x[j][p][2 * i + 1], terms);
#pragma unroll
              for (int term = 0; term < X_TERMS; term++) b[j][p][term][i] = terms[term];
            }
          }
        }
#pragma unroll
        for (int j = 0; j < NT; j++) square[j] += squareOfStep[j];
        if (step + WARPS < steps) loadInputs(tile, step + WARPS);
        else if (tile + static_cast<int>(gridDim.x) < tiles) loadInputs(tile + gridDim.x, warp);
#if __CUDA_ARCH__ >= 900
        waitFor(full + 8 * slot, parity);
#else
        waitCopies<COUNT - 1>();
#endif
        float sum[R][NT][4] = {};
#pragma unroll
        for (int p = 0; p < 2; p++) {
#pragma unroll
          for (int part = 0; part < R; part++) {
            const uint32_t at = mine + slot * STAGE + part * PART + p * INPUTS;
            uint32_t low[TW][4], high[TW][4];
            loadWeights<W>(at, APART, low);
            loadWeights<W>(at + HALF, APART, high);
#pragma unroll
            for (int order = X_TERMS - 1; order >= 0; order--) {
#pragma unroll
              for (int term = 0; term <= order && term < TW; term++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                  const uint32_t a[4] = {low[term][2 * half], high[term][2 * half], low[term][2 * half + 1],
                                         high[term][2 * half + 1]};
#pragma unroll
                  for (int j = 0; j < NT; j++) {
                    const uint32_t(&pairs)[4] = b[j][p][order - term];
                    multiply<bf16>(sum[part][j], a, pairs[2 * half], pairs[2 * half + 1]);
                  }
                }
              }
            }
          }
        }
        // The tensor core cuts sums off rather than rounding them: a chain of it ends with every step.
#pragma unroll
        for (int part = 0; part < R; part++) {
#pragma unroll
          for (int j = 0; j < NT; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) total[part][j][i] += sum[part][j][i];
          }
        }
      }
#if __CUDA_ARCH__ >= 900
      __syncwarp();
      if (lane < FREEING_LANES) arriveAt(empty + 8 * slot);
      if (++slot == COUNT) slot = 0, parity ^= 1;
#else
      fetch(slot);
      if (++slot == COUNT) slot = 0;
#endif
    }
#pragma unroll
    for (int j = 0; j < NT; j++) {
      float* columns = sums + (warp * NT * 8 + j * 8 + within * 2) * SUM_PITCH<R> + group;
#pragma unroll
      for (int part = 0; part < R; part++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          columns[(i % 2) * SUM_PITCH<R> + part * 16 + i / 2 * 8] = total[part][j][i];
        }
      }
      square[j] += __shfl_xor_sync(~0u, square[j], 1);
      square[j] += __shfl_xor_sync(~0u, square[j], 2);
      if (within == 0) squares[warp * NT * 8 + j * 8 + group] = square[j];
    }
    meetMultipliers();
    task.finish(tile, TileSums<R, NT>{sums, squares});
    meetMultipliers();
  }
}

}  // namespace flashmla
