// FlashInfer's MLA attention for Hopper (paged, bf16, one cooperative launch with its merge) behind the harness's interface: planned once by
// its own planner, then launched as its host function does. Written for the headers of commit b604637 (March 2025).
#include <flashinfer/attention/mla_hopper.cuh>
#include <flashinfer/attention/mla_params.cuh>
#include <flashinfer/attention/scheduler.cuh>
#include <cstdlib>
#include <vector>
#include "../../cuda/rival.h"

namespace {

using namespace flashinfer;
using Params = MLAParams<__nv_bfloat16, __nv_bfloat16, __nv_bfloat16, int32_t>;
constexpr int WIDTH = 576, LATENT = 512, PAGE = 64;
constexpr size_t INTEGERS = 8u << 20, FLOATS = 1u << 30;

struct Plan {
  Params params;
  uint32_t blocksX, blocksY;
  bool causal;
  cudaStream_t stream;
};

template <typename T> T* at(void* base, int64_t offset) { return reinterpret_cast<T*>(static_cast<char*>(base) + offset); }

} // namespace

/** Its logarithms of sums are in base 2. */
extern "C" const int rivalLseBase = 2;

extern "C" void* rivalPlan(const RivalCall* call, int* parts) {
  std::vector<int32_t> queries(call->batch + 1), pages(call->batch + 1), lengths(call->batch);
  for (int i = 0; i <= call->batch; i++) {
    queries[i] = i * call->sQ;
    pages[i] = i * call->tableWidth;
  }
  FLASHINFER_CUDA_CALL(cudaMemcpy(lengths.data(), call->lengths, lengths.size() * 4, cudaMemcpyDeviceToHost));
  void* integers;
  FLASHINFER_CUDA_CALL(cudaMalloc(&integers, INTEGERS));
  std::vector<char> staged(INTEGERS);
  MLAPlanInfo info;
  const bool causal = call->sQ > 1;
  FLASHINFER_CUDA_CALL(MLAPlan<int32_t>(call->scratch, FLOATS, integers, staged.data(), INTEGERS, info, queries.data(), pages.data(), lengths.data(),
                                        call->batch, call->heads, LATENT, causal, call->stream));
  FLASHINFER_CUDA_CALL(cudaStreamSynchronize(call->stream));

  Plan* plan = new Plan();
  Params& p = plan->params;
  p.q_nope = static_cast<__nv_bfloat16*>(const_cast<void*>(call->q));
  p.q_pe = p.q_nope + LATENT;
  p.ckv = static_cast<__nv_bfloat16*>(const_cast<void*>(call->cache));
  p.kpe = p.ckv + LATENT;
  p.partial_o = at<__nv_bfloat16>(call->scratch, info.partial_o_offset);
  p.partial_lse = at<float>(call->scratch, info.partial_lse_offset);
  p.final_o = static_cast<__nv_bfloat16*>(call->out);
  p.final_lse = call->lse;
  p.q_indptr = at<int32_t>(integers, info.q_indptr_offset);
  p.kv_indptr = at<int32_t>(integers, info.kv_indptr_offset);
  p.partial_indptr = at<int32_t>(integers, info.partial_indptr_offset);
  p.merge_packed_offset_start = at<int32_t>(integers, info.merge_packed_offset_start_offset);
  p.merge_packed_offset_end = at<int32_t>(integers, info.merge_packed_offset_end_offset);
  p.merge_partial_packed_offset_start = at<int32_t>(integers, info.merge_partial_packed_offset_start_offset);
  p.merge_partial_packed_offset_end = at<int32_t>(integers, info.merge_partial_packed_offset_end_offset);
  p.merge_partial_stride = at<int32_t>(integers, info.merge_partial_stride_offset);
  p.q_len = at<int32_t>(integers, info.q_len_offset);
  p.kv_len = at<int32_t>(integers, info.kv_len_offset);
  p.q_start = at<int32_t>(integers, info.q_start_offset);
  p.kv_start = at<int32_t>(integers, info.kv_start_offset);
  p.kv_end = at<int32_t>(integers, info.kv_end_offset);
  p.work_indptr = at<int32_t>(integers, info.work_indptr_offset);
  p.block_size = uint_fastdiv(PAGE);
  p.num_heads = uint_fastdiv(call->heads);
  p.q_nope_stride_n = p.q_pe_stride_n = call->heads * WIDTH;
  p.q_nope_stride_h = p.q_pe_stride_h = p.ckv_stride_n = p.kpe_stride_n = WIDTH;
  p.ckv_stride_page = p.kpe_stride_page = PAGE * WIDTH;
  p.o_stride_n = call->heads * LATENT;
  p.o_stride_h = LATENT;
  p.sm_scale = call->scale;
  plan->blocksX = info.num_blks_x;
  plan->blocksY = info.num_blks_y;
  plan->causal = causal;
  plan->stream = call->stream;
  *parts = static_cast<int>(info.num_blks_y);
  return plan;
}

extern "C" void rivalLaunch(void* state, const int* table) {
  Plan* plan = static_cast<Plan*>(state);
  plan->params.kv_indices = const_cast<int*>(table);
  if (plan->causal) {
    FLASHINFER_CUDA_CALL((mla::BatchMLAPageAttentionHopper<MaskMode::kCausal, LATENT, WIDTH - LATENT>(plan->params, plan->blocksX, plan->blocksY, plan->stream)));
  } else {
    FLASHINFER_CUDA_CALL((mla::BatchMLAPageAttentionHopper<MaskMode::kNone, LATENT, WIDTH - LATENT>(plan->params, plan->blocksX, plan->blocksY, plan->stream)));
  }
}
