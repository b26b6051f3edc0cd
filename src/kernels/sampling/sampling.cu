// sampling: a block a row, the draws of sampling.as.ts to the bit: the same steps of float32 arithmetic, none of them fused, and
// masses in whole numbers, whose sums have no order.
#include "../common/elements.cuh"

namespace flashmla {

constexpr int THREADS = 1024;
constexpr int WARP_COUNT = THREADS / 32;
constexpr int BUCKETS = 2048;
using mass_t = unsigned long long;

/** One row's parameters, as params.ts packs them. */
struct Parameters {
  float temperature;
  int topK;
  float topP, minP;
  uint32_t seedLow, seedHigh, step, unused;
};

/** e^x for x ≤ 0 (Cephes expf); 0 below −87 and for NaN. */
__device__ __forceinline__ float exponential(float x) {
  if (!(x >= -87.f)) return 0.f;
  const float n = rintf(__fmul_rn(x, 1.44269504f));
  const float high = __fsub_rn(x, __fmul_rn(n, 0.693359375f));
  const float r = __fsub_rn(high, __fmul_rn(n, -2.12194440e-4f));
  float p = 1.9875691500e-4f;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 0.5f);
  p = __fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), __fadd_rn(r, 1.f));
  return __fmul_rn(p, __int_as_float((static_cast<int>(n) + 127) << 23));
}

/** An unsigned integer in the order of the logits; NaN comes last, the zeros are equal. */
__device__ __forceinline__ uint32_t orderKey(float logit) {
  if (isnan(logit)) return 0;
  if (logit == 0.f) return 0x80000000u;
  const uint32_t bits = __float_as_uint(logit);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/** A weight in 2⁻³² units. */
__device__ __forceinline__ mass_t massOf(float weight) { return static_cast<mass_t>(__fmul_rn(weight, 4294967296.f)); }

__device__ __forceinline__ uint32_t philox(uint32_t step, uint32_t seedLow, uint32_t seedHigh) {
  uint32_t c0 = step, c1 = 0, c2 = 0, c3 = 0;
  for (int round = 0; round < 10; round++) {
    const uint64_t a = static_cast<uint64_t>(c0) * 0xd2511f53u, b = static_cast<uint64_t>(c2) * 0xcd9e8d57u;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ seedLow;
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ seedHigh;
    c1 = static_cast<uint32_t>(b);
    c3 = static_cast<uint32_t>(a);
    seedLow += 0x9e3779b9u;
    seedHigh += 0xbb67ae85u;
  }
  return c0;
}

struct Shared {
  mass_t buckets[BUCKETS];
  mass_t warps[WARP_COUNT];
  float values[WARP_COUNT];
  int ids[WARP_COUNT];
  mass_t target;
  uint32_t key, ties;
  int drawn;
};

/** The sum of what the threads before this one hold; `all` becomes the block's. */
__device__ mass_t sumBefore(mass_t value, Shared& shared, mass_t& all) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  mass_t sum = value;
  for (int step = 1; step < 32; step *= 2) {
    const mass_t lower = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += lower;
  }
  __syncthreads();
  if (lane == 31) shared.warps[warp] = sum;
  __syncthreads();
  mass_t before = 0;
  all = 0;
  for (int i = 0; i < WARP_COUNT; i++) {
    if (i < warp) before += shared.warps[i];
    all += shared.warps[i];
  }
  return before + sum - value;
}

/** The lowest index of the largest logit; 0 when all are NaN. */
__device__ int argmax(const float* logits, int count, Shared& shared) {
  float best = -INFINITY;
  int id = INT_MAX;
  auto consider = [&](float value, int at) {
    if (value > best || (value == best && at < id)) best = value, id = at;
  };
  for (int i = threadIdx.x; i < count; i += THREADS) consider(logits[i], i);
  auto reduce = [&]() {
    for (int step = 16; step > 0; step /= 2) {
      const float value = __shfl_xor_sync(~0u, best, step);
      const int at = __shfl_xor_sync(~0u, id, step);
      consider(value, at);
    }
  };
  reduce();
  if (threadIdx.x % 32 == 0) shared.values[threadIdx.x / 32] = best, shared.ids[threadIdx.x / 32] = id;
  __syncthreads();
  best = shared.values[threadIdx.x % 32];
  id = shared.ids[threadIdx.x % 32];
  reduce();
  return id == INT_MAX ? 0 : id;
}

/** Finds the bucket at which the tokens from the best on reach the target; the first warp alone. */
__device__ void findBucket(Shared& shared, int count, uint32_t& prefix, int bits) {
  const int lane = threadIdx.x, each = count / 32;
  // Lane 0 has the highest buckets.
  const int top = count - 1 - lane * each;
  mass_t own = 0;
  for (int i = 0; i < each; i++) own += shared.buckets[top - i];
  mass_t through = own;
  for (int step = 1; step < 32; step *= 2) {
    const mass_t lower = __shfl_up_sync(~0u, through, step);
    if (lane >= step) through += lower;
  }
  const mass_t target = shared.target;
  const unsigned reached = __ballot_sync(~0u, target <= through);
  const int winner = reached ? __ffs(reached) - 1 : 31;
  if (lane == winner) {
    mass_t left = target - (through - own);
    int bucket = top;
    for (; bucket > 0; bucket--) {
      if (left <= shared.buckets[bucket]) break;
      left -= shared.buckets[bucket];
    }
    shared.target = left;
    shared.key = prefix << bits | static_cast<uint32_t>(bucket);
  }
}

/** Radix select: leaves the key at which the tokens from the best on reach `target`, and the part of it due there. */
__device__ void findBoundary(const float* logits, const float* weights, int count, mass_t target, Shared& shared) {
  uint32_t prefix = 0;
  for (int pass = 0; pass < 3; pass++) {
    const int bits = pass == 2 ? 10 : 11, shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
    __syncthreads();
    for (int i = threadIdx.x; i < BUCKETS; i += THREADS) shared.buckets[i] = 0;
    if (pass == 0 && threadIdx.x == 0) shared.target = target;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += THREADS) {
      const uint32_t key = orderKey(logits[i]);
      if (pass > 0 && key >> (shift + bits) != prefix) continue;
      const mass_t mass = weights ? massOf(weights[i]) : 1;
      if (mass > 0) atomicAdd(&shared.buckets[key >> shift & ((1u << bits) - 1)], mass);
    }
    __syncthreads();
    if (threadIdx.x < 32) findBucket(shared, 1 << bits, prefix, bits);
    __syncthreads();
    prefix = shared.key;
  }
}

/** Ids of one thread: an even share, in order. */
struct Share {
  int from, to;
};
__device__ __forceinline__ Share shareOf(int count) {
  const int each = (count + THREADS - 1) / THREADS;
  const int from = min(count, static_cast<int>(threadIdx.x) * each);
  return {from, min(count, from + each)};
}

/** Equal tokens at the boundary before this thread's share. */
__device__ mass_t tiesBefore(const float* logits, int count, Shared& shared) {
  const Share share = shareOf(count);
  const uint32_t key = shared.key;
  mass_t equal = 0, all;
  for (int i = share.from; i < share.to; i++) equal += orderKey(logits[i]) == key;
  return sumBefore(equal, shared, all);
}

/**
 * Runs through this thread's kept tokens by id: `visit(id, mass)` until it gives true. `before` is the number of equal tokens at
 * the boundary that come before.
 */
template <typename Visit>
__device__ __forceinline__ void walkShare(const float* logits, const float* weights, int count, float minP, mass_t before,
                                          const Shared& shared, const Visit& visit) {
  const Share share = shareOf(count);
  for (int i = share.from; i < share.to; i++) {
    const uint32_t key = orderKey(logits[i]);
    if (key < shared.key) continue;
    if (key == shared.key && before++ >= shared.ties) continue;
    if (weights[i] < minP) continue;
    if (visit(i, massOf(weights[i]))) return;
  }
}

/** The mass of this thread's kept tokens. */
__device__ mass_t keptMass(const float* logits, const float* weights, int count, float minP, mass_t ties, const Shared& shared) {
  mass_t mass = 0;
  walkShare(logits, weights, count, minP, ties, shared, [&](int, mass_t own) {
    mass += own;
    return false;
  });
  return mass;
}

/** Cuts to the top p: the boundary moves to where the mass from the best on reaches it. */
__device__ void cutToTopP(const float* logits, const float* weights, int count, float topP, Shared& shared) {
  mass_t kept;
  sumBefore(keptMass(logits, weights, count, 0.f, tiesBefore(logits, count, shared), shared), shared, kept);
  mass_t target = static_cast<mass_t>(ceil(__dmul_rn(static_cast<double>(kept), static_cast<double>(topP))));
  target = min(kept, max(target, static_cast<mass_t>(1)));
  findBoundary(logits, weights, count, target, shared);
  // All tokens of that key weigh the same, so whichever thread finds one writes the same number.
  const uint32_t key = shared.key;
  const mass_t due = shared.target;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += THREADS) {
    if (orderKey(logits[i]) != key) continue;
    const mass_t each = massOf(weights[i]);
    shared.ties = each == 0 ? 1 : static_cast<uint32_t>((due + each - 1) / each);
  }
  __syncthreads();
}

__device__ int sampleRow(const float* logits, float* weights, int count, const Parameters& p, Shared& shared) {
  const int best = argmax(logits, count, shared);
  const float largest = logits[best];
  if (!(p.temperature > 0.f) || !(fabsf(largest) < INFINITY)) return best;
  for (int i = threadIdx.x; i < count; i += THREADS) {
    weights[i] = exponential(__fdiv_rn(__fsub_rn(logits[i], largest), p.temperature));
  }
  if (threadIdx.x == 0) shared.key = 0, shared.ties = ~0u, shared.drawn = best;
  __syncthreads();
  if (p.topK > 0 && p.topK < count) {
    findBoundary(logits, nullptr, count, p.topK, shared);
    if (threadIdx.x == 0) shared.ties = static_cast<uint32_t>(shared.target);
    __syncthreads();
  }
  if (p.topP < 1.f) cutToTopP(logits, weights, count, p.topP, shared);
  const mass_t ties = tiesBefore(logits, count, shared);
  const mass_t own = keptMass(logits, weights, count, p.minP, ties, shared);
  mass_t total;
  mass_t running = sumBefore(own, shared, total);
  const mass_t random = philox(p.step, p.seedLow, p.seedHigh);
  const mass_t draw = random * (total >> 32) + (random * (total & 0xffffffffu) >> 32);
  if (running <= draw && draw < running + own) {
    walkShare(logits, weights, count, p.minP, ties, shared, [&](int id, mass_t mass) {
      running += mass;
      if (running > draw) shared.drawn = id;
      return running > draw;
    });
  }
  __syncthreads();
  return shared.drawn;
}

}  // namespace flashmla

extern "C" __global__ void __launch_bounds__(1024)
    sampling(const float* logits, const flashmla::Parameters* params, int* out, float* workspace, const int* rowCount, int vocab,
             int validVocab) {
  using namespace flashmla;
  __shared__ Shared shared;
  letNextBegin();
  waitForEarlier();
  const int row = blockIdx.x;
  if (row >= *rowCount) return;
  const size_t at = static_cast<size_t>(row) * vocab;
  const int id = sampleRow(logits + at, workspace + at, validVocab, params[row], shared);
  if (threadIdx.x == 0) out[row] = id;
}
