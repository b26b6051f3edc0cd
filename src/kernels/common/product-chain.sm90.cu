// Up to MOST_PARTS products of one row one after the other in one launch, for Hopper: the arithmetic of streamed-products.cuh, to the bit,
// but memory does not pause between them. One block a multiprocessor; a warp of each brings weights through one ring, from the first
// part to the last: weights depend on nothing, so while the others wait for what the parts before left, the next ones arrive. Blocks
// take equal shares of every part, in tiles of 8 outputs, and meet at counters in memory where a part reads what others wrote. The row of x lies in shared memory in three terms of bf16, normed where it is.
#include "../expert-routing/expert-routing.cuh"
#include "product-chain.cuh"
#include "streamed-products.cuh"

namespace flashmla {

constexpr int CHAIN_THREADS = (WARPS + 1) * 32;
/** Outputs of a tile: weight rows, or pairs of them. */
constexpr int UNITS = 8;
/** A stage: 16 rows of 1,024 inputs where they come in pairs, else 8 of 2,048; rows lie half a bank cycle apart. */
constexpr int STAGE = 16 * (2048 + 64);
#ifndef RING_STAGES
#define RING_STAGES 4
#endif
/** Tiles whose sums may be on their way to the warp that writes outputs. */
constexpr int TURNS = 10;

#ifdef STAMPS
// For chain-harness.cu, behind the counters: moments of each part of each block.
#define STAMP(i)                                                                                                         \
  if (threadIdx.x == 0) {                                                                                                \
    unsigned long long now;                                                                                              \
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));                                                              \
    reinterpret_cast<unsigned long long*>(chain.counters + 16)[(blockIdx.x * MOST_PARTS + at) * STAMPS_A_PART + i] = now;            \
  }
#else
#define STAMP(i)
#endif

__device__ __forceinline__ bool isGated(const Part& part) { return part.kind == GATED || part.kind == EXPERTS_GATED; }
__device__ __forceinline__ bool choosesExperts(const Part& part) { return part.kind == EXPERTS_GATED || part.kind == EXPERTS_DOWN; }
__device__ __forceinline__ int segmentsOf(const Part& part) { return part.kind == EXPERTS_DOWN ? part.perToken : 1; }
__device__ __forceinline__ int pieceOf(const Part& part) { return isGated(part) ? 1024 : 2048; }
__device__ __forceinline__ int unitsOf(const Part& part) {
  if (part.kind == ROUTING) return 1;
  if (part.kind == PLAIN) return part.outputs + part.outputs2;
  return part.kind == EXPERTS_GATED ? part.outputs * part.perToken : part.outputs;
}

/** Waits until every block has announced the end of a part; one thread. */
__device__ __forceinline__ void waitForPart(const unsigned* counter) {
  const long long start = clock64();
  unsigned arrived;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(counter) : "memory");
    // Ten seconds: a block is missing, and waiting on would hang the GPU.
    if (clock64() - start > 20000000000ll) __trap();
  } while (arrived < gridDim.x);
}

/** 8 floats that other blocks may have written in this launch. */
__device__ __forceinline__ void loadFresh(const float* from, float (&v)[8]) {
  const float4 a = __ldcg(reinterpret_cast<const float4*>(from)), b = __ldcg(reinterpret_cast<const float4*>(from) + 1);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/** A tile: some units of a part. */
struct Tile {
  int part, begin, units;
};

struct alignas(16) Shared {
  uint8_t ring[RING_STAGES][STAGE];
  float sums[TURNS][WARPS][2 * UNITS];
  float squares[WARPS];
  /** Of the stage that lies there; part -1 after the last one. */
  Tile tile[RING_STAGES];
  /** Known what comes, is there, is read; sums are there. */
  uint64_t known[RING_STAGES], full[RING_STAGES], empty[RING_STAGES], summed[TURNS];
  /** [term][input], behind everything else. */
  __device__ __forceinline__ uint32_t terms() const { return sharedAddress(this) + sizeof(Shared); }
};

/** The weight row of a tile that a lane brings. */
struct LaneRow {
  int unit, rows;
  bool isSecond, isLive;
  __device__ __forceinline__ LaneRow(const Part& part, const Tile& tile, int lane) {
    const bool gated = isGated(part);
    const int mine = lane % UNITS;
    isSecond = gated && lane >= UNITS;
    unit = tile.begin + min(mine, tile.units - 1);
    rows = gated ? 2 * tile.units : tile.units;
    isLive = mine < tile.units && lane < (gated ? 2 * UNITS : UNITS);
  }
  /** Where it lies; `id` is the expert that the lane of that number knows. All lanes. */
  __device__ __forceinline__ const bf16* source(const Part& part, int segment, int id) const {
    int row = unit;
    if (choosesExperts(part)) {
      const bool isDown = part.kind == EXPERTS_DOWN;
      const int expert = __shfl_sync(~0u, id, isDown ? segment : unit / part.outputs);
      row = isDown ? expert * part.outputs + unit : expert * part.outputs2 + unit % part.outputs;
    }
    if (part.kind == PLAIN && unit >= part.outputs) return part.second + static_cast<size_t>(unit - part.outputs) * part.inputs;
    return (isSecond ? part.second : part.first) + static_cast<size_t>(row) * part.inputs;
  }
};

/** The warp that brings weights. */
struct Bringer {
  const Chain& chain;
  Shared& shared;
  const int lane = threadIdx.x % 32;
  int slot = 0, parity = 1, id = 0, knowsIdsOf = -1;

  __device__ __forceinline__ Bringer(const Chain& chain, Shared& shared) : chain(chain), shared(shared) {}

  __device__ __forceinline__ void next() {
    if (++slot == RING_STAGES) slot = 0, parity ^= 1;
  }

  /** Says what the stage that follows belongs to. */
  __device__ __forceinline__ void announce(const Tile& tile) {
    waitFor(sharedAddress(&shared.empty[slot]), parity);
    if (lane == 0) {
      shared.tile[slot] = tile;
      arriveAt(sharedAddress(&shared.known[slot]));
    }
  }

  /** Learns which experts the routing before has chosen. Counters belong to this launch only when the ones before it have ended. */
  __device__ __forceinline__ void learnIds(int at) {
    const Part& part = chain.parts[at];
    waitForEarlier();
    // This block may have had no tile of the gates: the downs ask for what those asked for, not for all that they read.
    int routed = -1;
    for (int i = 0; i <= at; i++) {
      if (chain.parts[i].kind == EXPERTS_GATED && chain.parts[i].ids == part.ids) routed = chain.parts[i].waitsFor;
    }
    if (routed >= 0 && lane == 0) waitForPart(chain.counters + routed);
    __syncwarp();
    id = lane < part.perToken ? __ldcg(part.ids + lane) : 0;
    if (static_cast<unsigned>(id) >= static_cast<unsigned>(part.experts)) id = 0;
    knowsIdsOf = at;
  }

  __device__ __forceinline__ void bring(const Tile& tile) {
    const Part& part = chain.parts[tile.part];
    if (part.kind == ROUTING) {
      announce(tile);
      if (lane == 0) arriveAt(sharedAddress(&shared.full[slot]));
      next();
      return;
    }
    bool isAnnounced = false;
    if (choosesExperts(part) && knowsIdsOf != tile.part) {
      // First: that this block is through with the routing, it says once it knows what comes.
      announce(tile);
      isAnnounced = true;
      learnIds(tile.part);
    }
    const LaneRow row(part, tile, lane);
    const int piece = pieceOf(part);
    const uint32_t target = sharedAddress(shared.ring) + (lane % (2 * UNITS)) * (2 * piece + 64);
    for (int segment = 0; segment < segmentsOf(part); segment++) {
      const bf16* source = row.source(part, segment, id);
      for (int k = 0; k < part.inputs; k += piece) {
        if (!isAnnounced) announce(tile);
        isAnnounced = false;
        const uint32_t full = sharedAddress(&shared.full[slot]);
        const int bytes = min(piece, part.inputs - k) * static_cast<int>(sizeof(bf16));
        if (lane == 0) arriveExpecting(full, row.rows * bytes);
        __syncwarp();
        if (row.isLive) copyBulk(target + slot * STAGE, source + k, bytes, full);
        next();
      }
    }
  }

  __device__ __forceinline__ void run() {
    for (int at = 0; at < chain.count; at++) {
      // Equal shares of each part, in tiles of nearly equal size.
      const int all = unitsOf(chain.parts[at]), block = blockIdx.x, blocks = gridDim.x;
      const int first = static_cast<int>(static_cast<long long>(all) * block / blocks);
      const int count = static_cast<int>(static_cast<long long>(all) * (block + 1) / blocks) - first, tiles = (count + UNITS - 1) / UNITS;
      for (int i = 0; i < tiles; i++) {
        const int begin = count * i / tiles;
        bring({at, first + begin, count * (i + 1) / tiles - begin});
      }
    }
    announce({-1, 0, 0});
  }
};

/**
 * The row of x in terms in shared memory, normed on the way. All warps that multiply, each with the steps that it multiplies, so that
 * squares add up in the same order as elsewhere.
 */
struct InputTerms {
  static constexpr int EACH = 8, ROUNDS = 3;
  float w[2][8];

  static __device__ __forceinline__ int stepOf(int first) { return first + threadIdx.x / 32 + threadIdx.x % 32 / 4 * WARPS; }

  __device__ __forceinline__ void loadNorm(const Part& part, int first, int steps) {
    const int step = stepOf(first), within = threadIdx.x % 4;
#pragma unroll
    for (int p = 0; p < 2; p++) {
      if (part.isNormed && step < steps) loadActivations(part.norm + step * STEP + p * 32 + within * 8, true, w[p]);
    }
  }

  static __device__ __forceinline__ void store(uint32_t terms, int steps, int step, const float (&x)[2][8]) {
    const int within = threadIdx.x % 4;
#pragma unroll
    for (int p = 0; p < 2; p++) {
      uint32_t words[X_TERMS][4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        uint32_t pair[X_TERMS];
        split(x[p][2 * i], x[p][2 * i + 1], pair);
#pragma unroll
        for (int term = 0; term < X_TERMS; term++) words[term][i] = pair[term];
      }
#pragma unroll
      for (int term = 0; term < X_TERMS; term++) {
        const uint32_t to = terms + ((term * steps + step) * STEP + p * 32 + within * 8) * 2;
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[term][0]), "r"(words[term][1]), "r"(words[term][2]), "r"(words[term][3]) : "memory");
      }
    }
  }

  __device__ __forceinline__ void fill(const Part& part, uint32_t terms, int steps, float* squares) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, within = lane % 4;
    float square = 0.f;
    for (int begin = 0; begin < steps; begin += ROUNDS * WARPS * EACH) {
      float x[ROUNDS][2][8] = {};
#pragma unroll
      for (int round = 0; round < ROUNDS; round++) {
        const int step = stepOf(begin + round * WARPS * EACH);
#pragma unroll
        for (int p = 0; p < 2; p++) {
          if (step < steps) loadFresh(part.x + step * STEP + p * 32 + within * 8, x[round][p]);
        }
      }
#pragma unroll
      for (int round = 0; round < ROUNDS; round++) {
        const int first = begin + round * WARPS * EACH, step = stepOf(first);
        if (part.isNormed) {
          if (first > 0) loadNorm(part, first, steps);
          float squareOfStep = 0.f;
#pragma unroll
          for (int p = 0; p < 2; p++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
              squareOfStep = fmaf(x[round][p][i], x[round][p][i], squareOfStep);
              x[round][p][i] *= w[p][i];
            }
          }
#pragma unroll
          for (int each = 0; each < EACH; each++) square += __shfl_sync(~0u, squareOfStep, each * 4 + within);
        }
        if (step < steps) store(terms, steps, step, x[round]);
      }
    }
    square += __shfl_xor_sync(~0u, square, 1);
    square += __shfl_xor_sync(~0u, square, 2);
    if (lane == 0) squares[warp] = square;
  }
};

/** The warps that multiply; the first of them writes outputs. */
struct Multiplier {
  const Chain& chain;
  Shared& shared;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, within = lane % 4;
  int slot = 0, parity = 0, turn = 0, turnParity = 0, at = 0, staged = -1;
  float inverse = 1.f;

  __device__ __forceinline__ Multiplier(const Chain& chain, Shared& shared) : chain(chain), shared(shared) {}

  __device__ __forceinline__ void leaveStage() {
    __syncwarp();
    if (lane == 0) arriveAt(sharedAddress(&shared.empty[slot]));
    if (++slot == RING_STAGES) slot = 0, parity ^= 1;
  }

  /** Whether the terms in shared memory are those that a part reads. */
  __device__ __forceinline__ bool hasInputs(const Part& part) const {
    if (staged < 0) return false;
    const Part& last = chain.parts[staged];
    bool same = part.x == last.x && part.norm == last.norm && part.isNormed == last.isNormed && part.inputs == last.inputs && part.kind != EXPERTS_DOWN &&
                last.kind != EXPERTS_DOWN;
    for (int i = staged; i < at; i++) same = same && chain.parts[i].out != part.x && chain.parts[i].out2 != part.x;
    return same;
  }

  /** Goes on to part `next`: says that this block has ended those before it, waits for the others, takes the inputs in. */
  __device__ __forceinline__ void goTo(int next) {
    STAMP(4);
    if (warp == 0) {
      __syncwarp();
      for (int i = at; lane == 0 && i < (next < 0 ? chain.count : next); i++) {
        if (chain.parts[i].announces) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(chain.counters + i) : "memory");
      }
      __syncwarp();
    }
    if (next < 0) return;
    at = next;
    const Part& part = chain.parts[at];
    const int steps = part.inputs / STEP * segmentsOf(part);
    STAMP(0);
    const bool isNew = part.kind != ROUTING && !hasInputs(part);
    InputTerms terms;
    if (isNew) terms.loadNorm(part, 0, steps);
    if (part.waitsFor >= 0 && threadIdx.x == 0) waitForPart(chain.counters + part.waitsFor);
    meetMultipliers();
    STAMP(1);
    if (!isNew) return;
    terms.fill(part, shared.terms(), steps, shared.squares);
    meetMultipliers();
    STAMP(2);
    staged = at;
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += shared.squares[i];
    inverse = part.isNormed ? 1.f / sqrtf(sum / part.inputs + part.epsilon) : 1.f;
  }

  __device__ __forceinline__ void route(const Part& part) {
    const Router router{part.experts, part.perToken, part.inputs, part.outputs, part.outputs2, part.accumulates, part.epsilon != 0.f, part.scale};
    if (warp == 0 && *part.rowCount > 0) {
      routeRow(router, part.x, part.isNormed ? part.norm : nullptr, reinterpret_cast<int*>(part.out), part.out2, reinterpret_cast<double*>(shared.sums));
    }
    leaveStage();
  }

  /** What a result is added to, or the weight of its expert; NaN for an expert that there is not. For the lanes that write. */
  __device__ __forceinline__ float before(const Part& part, int unit) const {
    if (part.kind == EXPERTS_GATED) {
      const int choice = unit / part.outputs;
      const bool isKnown = static_cast<unsigned>(__ldcg(part.ids + choice)) < static_cast<unsigned>(part.experts);
      return isKnown ? __ldcg(part.expertWeights + choice) : __int_as_float(0x7fffffff);
    }
    return part.accumulates ? __ldcg(part.out + unit) : 0.f;
  }

  __device__ __forceinline__ float sumOf(int row) const {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += shared.sums[turn][i][row];
    return sum;
  }

  __device__ __forceinline__ void finish(const Part& part, int unit, float old) const {
    float value = sumOf(lane);
    if (part.isNormed) value *= inverse;
    if (isGated(part)) {
      float up = sumOf(UNITS + lane);
      if (part.isNormed) up *= inverse;
      value = value / (1.f + expf(-value)) * up;
      if (part.kind == EXPERTS_GATED) value = isnan(old) ? 0.f : value * old;
      part.out[unit] = value;
      return;
    }
    value = __fmul_rn(value, part.scale);
    float* out = unit < part.outputs ? part.out + unit : part.out2 + unit - part.outputs;
    *out = part.accumulates ? __fadd_rn(old, value) : value;
  }

  /** Two steps of a stage at once, `far` apart: the tensor core's sums of a step are a chain that one warp cannot hurry. */
  template <bool GATED_ROWS> __device__ __forceinline__ void multiplySteps(uint32_t rows, uint32_t x, int steps, int far, float (&sum)[2][4]) const {
    constexpr int PITCH = GATED_ROWS ? 2048 + 64 : 4096 + 64;
#pragma unroll
    for (int p = 0; p < 2; p++) {
      uint32_t a[2][2][4];
#pragma unroll
      for (int v = 0; v < 2; v++) {
        const uint32_t from = rows + (v * far * STEP + p * 32) * 2;
        const uint4 low = loadShared16(from), high = GATED_ROWS ? loadShared16(from + UNITS * PITCH) : make_uint4(0, 0, 0, 0);
        a[v][0][0] = low.x, a[v][0][1] = high.x, a[v][0][2] = low.y, a[v][0][3] = high.y;
        a[v][1][0] = low.z, a[v][1][1] = high.z, a[v][1][2] = low.w, a[v][1][3] = high.w;
      }
#pragma unroll
      for (int order = X_TERMS - 1; order >= 0; order--) {
        uint4 b[2];
#pragma unroll
        for (int v = 0; v < 2; v++) b[v] = loadShared16(x + ((order * steps + v * far) * STEP + p * 32) * 2);
#pragma unroll
        for (int v = 0; v < 2; v++) multiply<bf16>(sum[v], a[v][0], b[v].x, b[v].y);
#pragma unroll
        for (int v = 0; v < 2; v++) multiply<bf16>(sum[v], a[v][1], b[v].z, b[v].w);
      }
    }
  }

  template <bool GATED_ROWS> __device__ __forceinline__ void multiplyTile(const Part& part, const Tile& tile) {
    constexpr int PIECE = GATED_ROWS ? 1024 : 2048, PITCH = 2 * PIECE + 64;
    const int segments = segmentsOf(part), steps = part.inputs / STEP, unit = tile.begin + lane;
    const bool writes = warp == 0 && lane < tile.units && *part.rowCount > 0;
    const float old = writes ? before(part, unit) : 0.f;
    const uint32_t mine = sharedAddress(shared.ring) + group * PITCH + within * 16, terms = shared.terms() + within * 16;
    float total[4] = {};
    for (int segment = 0; segment < segments; segment++) {
      for (int first = 0; first < steps; first += PIECE / STEP) {
        waitFor(sharedAddress(&shared.full[slot]), parity);
        const int here = min(PIECE / STEP, steps - first);
        for (int u = warp; u < here; u += 2 * WARPS) {
          const int far = u + WARPS < here ? WARPS : 0;
          float sum[2][4] = {};
          multiplySteps<GATED_ROWS>(mine + slot * STAGE + u * STEP * 2, terms + (segment * steps + first + u) * STEP * 2, steps * segments, far, sum);
          // The tensor core cuts sums off rather than rounding them: a chain of it ends with every step.
#pragma unroll
          for (int i = 0; i < 4; i++) {
            total[i] += sum[0][i];
            if (far > 0) total[i] += sum[1][i];
          }
        }
        leaveStage();
      }
    }
    // Every column is the row; the first one counts.
    if (within == 0) {
      shared.sums[turn][warp][group] = total[0];
      if (GATED_ROWS) shared.sums[turn][warp][UNITS + group] = total[2];
    }
    __syncwarp();
    const uint32_t summed = sharedAddress(&shared.summed[turn]);
    if (lane == 0) arriveAt(summed);
    if (warp == 0) {
      waitFor(summed, turnParity);
      if (writes) finish(part, unit, old);
    }
    STAMP(3);
    if (++turn == TURNS) turn = 0, turnParity ^= 1;
  }

  __device__ __forceinline__ void run() {
    waitForEarlier();
    while (true) {
      waitFor(sharedAddress(&shared.known[slot]), parity);
      const Tile tile = shared.tile[slot];
      if (tile.part != at || staged < 0) goTo(tile.part);
      if (tile.part < 0) break;
      const Part& part = chain.parts[at];
      if (part.kind == ROUTING) {
        route(part);
        continue;
      }
      if (isGated(part)) multiplyTile<true>(part, tile);
      else multiplyTile<false>(part, tile);
    }
    if (threadIdx.x > 0) return;
    // Whoever leaves last has seen all others past their waits.
    if (atomicInc(chain.left(), gridDim.x - 1) == gridDim.x - 1) {
      for (int i = 0; i < MOST_PARTS; i++) chain.counters[i] = 0;
    }
  }
};

}  // namespace flashmla

extern "C" __global__ void __launch_bounds__(flashmla::CHAIN_THREADS, 1) productChain(const __grid_constant__ flashmla::Chain chain) {
  using namespace flashmla;
  extern __shared__ __align__(128) uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  letNextBegin();
  if (threadIdx.x == 0) {
    for (int i = 0; i < RING_STAGES; i++) {
      initBarrier(sharedAddress(&shared.known[i]), 1);
      initBarrier(sharedAddress(&shared.full[i]), 1);
      initBarrier(sharedAddress(&shared.empty[i]), WARPS);
    }
    for (int i = 0; i < TURNS; i++) initBarrier(sharedAddress(&shared.summed[i]), WARPS);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x / 32 == WARPS) Bringer(chain, shared).run();
  else Multiplier(chain, shared).run();
}
