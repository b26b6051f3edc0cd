// FlashMLA's dense decode (bf16, Hopper) behind the harness's interface. As in its own host function: planned once by its metadata
// kernel, then the split kernel and the merge, both launched with programmatic serialization. Built against a checkout by build.sh.
#include <cuda_runtime.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include "kernels/params.h"
#include "kernels/sm90/decode/dense/splitkv_mla.h"
#include "kernels/smxx/decode/combine/combine.h"
#include "kernels/smxx/decode/get_decoding_sched_meta/get_decoding_sched_meta.h"
#include "../../cuda/rival.h"

namespace {

constexpr int WIDTH = 576, LATENT = 512, PAGE = 64, ROWS_A_BLOCK = 64, OVERHEAD_BLOCKS = 5;

struct Plan {
  DenseAttnDecodeParams attention;
  CombineParams merge;
};

template <typename T> T* allocate(size_t count) {
  T* pointer;
  if (cudaMalloc(&pointer, count * sizeof(T)) != cudaSuccess) {
    printf("no memory for FlashMLA's plan\n");
    exit(1);
  }
  return pointer;
}

int multiprocessors() {
  int device, count;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

} // namespace

extern "C" void* rivalPlan(const RivalCall* call, int* parts) {
  const int rows = call->sQ * call->heads, blocks = (rows + ROWS_A_BLOCK - 1) / ROWS_A_BLOCK;
  *parts = multiprocessors() / blocks > 1 ? multiprocessors() / blocks : 1;
  const int slots = call->batch + *parts;
  auto* schedule = allocate<DecodingSchedMeta>(*parts);
  int* splits = allocate<int>(call->batch + 1);
  GetDecodeSchedMetaParams planning = {};
  planning.b = call->batch;
  planning.s_q = call->sQ;
  planning.block_size_n = PAGE;
  planning.fixed_overhead_num_blocks = OVERHEAD_BLOCKS;
  planning.topk = planning.extra_topk = -1;
  planning.seqlens_k_ptr = const_cast<int*>(call->lengths);
  planning.tile_scheduler_metadata_ptr = schedule;
  planning.num_splits_ptr = splits;
  planning.num_sm_parts = *parts;
  planning.stream = call->stream;
  smxx::decode::run_get_decoding_sched_meta_kernel(planning);

  Plan* plan = new Plan();
  DenseAttnDecodeParams& a = plan->attention;
  a.b = call->batch;
  a.s_q = call->sQ;
  a.q_seq_per_hk = rows;
  a.d = WIDTH;
  a.d_v = LATENT;
  a.h_q = a.q_head_per_hk = call->heads;
  a.h_k = 1;
  a.num_blocks = static_cast<int>(call->pages);
  a.is_causal = call->sQ > 1;
  a.scale_softmax = call->scale;
  a.scale_softmax_log2 = static_cast<float>(call->scale * M_LOG2E);
  a.q_ptr = const_cast<void*>(call->q);
  a.k_ptr = const_cast<void*>(call->cache);
  a.o_ptr = call->out;
  a.softmax_lse_ptr = call->lse;
  a.q_row_stride = a.q_head_stride = a.k_row_stride = a.k_head_stride = WIDTH;
  a.q_batch_stride = static_cast<int64_t>(rows) * WIDTH;
  a.k_batch_stride = PAGE * WIDTH;
  a.o_row_stride = LATENT;
  a.o_batch_stride = a.o_head_stride = static_cast<int64_t>(rows) * LATENT;
  a.block_table_batch_stride = call->tableWidth;
  a.page_block_size = PAGE;
  a.seqlens_k_ptr = const_cast<int*>(call->lengths);
  a.tile_scheduler_metadata_ptr = schedule;
  a.num_sm_parts = *parts;
  a.num_splits_ptr = splits;
  a.total_num_splits = slots;
  a.oaccum_ptr = call->scratch;
  a.softmax_lseaccum_ptr = call->scratch + static_cast<size_t>(slots) * rows * LATENT;
  a.stream = call->stream;

  CombineParams& m = plan->merge;
  m.b = call->batch;
  m.s_q = call->sQ;
  m.h_q = call->heads;
  m.d_v = LATENT;
  m.lse = call->lse;
  m.out = call->out;
  m.stride_lse_b = m.stride_lse_accum_split = rows;
  m.stride_lse_s_q = m.stride_lse_accum_s_q = call->heads;
  m.stride_o_b = m.stride_o_accum_split = rows * LATENT;
  m.stride_o_s_q = m.stride_o_accum_s_q = call->heads * LATENT;
  m.stride_o_h_q = m.stride_o_accum_h_q = LATENT;
  m.lse_accum = a.softmax_lseaccum_ptr;
  m.o_accum = a.oaccum_ptr;
  m.tile_scheduler_metadata_ptr = schedule;
  m.num_splits_ptr = splits;
  m.num_sm_parts = *parts;
  m.stream = call->stream;
  return plan;
}

extern "C" void rivalLaunch(void* state, const int* table) {
  Plan* plan = static_cast<Plan*>(state);
  plan->attention.block_table = const_cast<int*>(table);
  sm90::decode::dense::run_flash_splitkv_mla_kernel<cutlass::bfloat16_t>(plan->attention);
  smxx::decode::run_flash_mla_combine_kernel<cutlass::bfloat16_t>(plan->merge);
}
