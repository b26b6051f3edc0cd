// What a launch of product-chain.sm90.cu is given, as product-chain.cuda.ts lays it out; benchmarks/cuda/chain-harness.cu fills it too.
#pragma once
#include <cuda_bf16.h>

namespace flashmla {

constexpr int MOST_PARTS = 8;
/** Moments of each part of each block that a build with -DSTAMPS leaves. */
constexpr int STAMPS_A_PART = 5;

/** What a part does with its matrices; product-chain.cuda.ts has the same order. */
enum Kind { PLAIN, GATED, EXPERTS_GATED, EXPERTS_DOWN, ROUTING };

/** One part, as product-chain.cuda.ts lays it out: addresses, scalars, what the device adds. */
struct Part {
  /** [inputs]; of EXPERTS_DOWN [perToken, inputs]. */
  const float *x, *norm;
  const int* rowCount;
  const __nv_bfloat16 *first, *second;
  float *out, *out2;
  const int* ids;
  const float* expertWeights;
  int inputs, outputs, outputs2, kind, accumulates, isNormed, experts, perToken;
  float scale, epsilon;
  /** The last part before whose end this one may not begin, or -1; whether a later one asks for this one's end. */
  int waitsFor, announces;
};

/** The counters are zero before and after a launch: arrivals at the end of each part, blocks that left. */
struct Chain {
  unsigned* counters;
  int count, reserved;
  Part parts[MOST_PARTS];
  __device__ __forceinline__ unsigned* left() const { return counters + MOST_PARTS; }
};

}  // namespace flashmla
