// What decode-harness.cu asks of another library's decode kernel, so that both are checked and timed by the same code.
#pragma once
#include <cuda_runtime.h>
#include <cstddef>

struct RivalCall {
  int batch, sQ, heads, longest, tableWidth;
  size_t pages;       // of 64 tokens, of 576 bf16 values each
  const void* q;      // bf16 [batch, sQ, heads, 576]
  const void* cache;  // bf16 [pages, 64, 576]
  const int* lengths; // int32 [batch], on the device
  void* out;          // bf16 [batch, sQ, heads, 512]
  float* lse;         // float32 [batch, sQ, heads]
  float* scratch;     // 1 GiB, filled with NaN between plan and check
  float scale;
  cudaStream_t stream;
};

/** Plans a call for these lengths, causal; what it returns lives as long as the process. `parts` is told in the report. */
using RivalPlan = void* (*)(const RivalCall* call, int* parts);
/** Puts the whole operation on the stream: attention and merge, with the block table int32 [batch, tableWidth] on the device. */
using RivalLaunch = void (*)(void* plan, const int* table);
/** Optional symbol `const int rivalLseBase`: the base of its logarithms of sums where that is not e. */
