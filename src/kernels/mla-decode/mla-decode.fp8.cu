// mlaDecode of 16-bit queries over an fp8 cache, for Ampere and newer: mla-decode.cu with entries that are widened to bf16 on their way to
// shared memory (e4m3 times a power of two is exact there). The next tile's bytes are in registers while this one is computed.
#define MLA_DECODE_STAGES_ONLY
#include "mla-decode.cu"
#include "../common/elements.cuh"

namespace flashmla {

/** Eight e4m3 values times `scale`, as bf16. */
__device__ __forceinline__ uint4 widenEight(uint2 bits, float scale) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint32_t pair = (i < 2 ? bits.x : bits.y) >> (i % 2 * 16) & 0xffff;
    const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3);
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&halves));
    words[i] = pack<bf16>(v.x * scale, v.y * scale);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <int D_C, int D_R> struct Fp8Decode : Decode<bf16, D_C, D_R> {
  using Base = Decode<bf16, D_C, D_R>;
  static constexpr int ENTRY = D_C + D_C / 32 + 2 * D_R;
  static constexpr int ROWS_OF_WARP = TILE / WARPS;
  /** Eights of latent values a lane has of a row, and fours of rotary ones. */
  static constexpr int EIGHTS = (D_C / 8 + 31) / 32;

  /** A tile's bytes as one lane has them. */
  struct Raw {
    uint2 latent[ROWS_OF_WARP][EIGHTS];
    uint2 rotary[ROWS_OF_WARP];
    float scale[ROWS_OF_WARP][EIGHTS];
    int slot[ROWS_OF_WARP];
  };

  static __device__ __forceinline__ void fetch(const PartialArguments& a, const Share& share, int position, Raw& raw) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++) {
      const int slot = slotOf(a, share, position + warp + r * WARPS);
      raw.slot[r] = slot;
      const uint8_t* entry = static_cast<const uint8_t*>(a.cache) + static_cast<size_t>(max(slot, 0)) * ENTRY;
      raw.rotary[r] = make_uint2(0, 0);
#pragma unroll
      for (int i = 0; i < EIGHTS; i++) {
        const int eight = lane + i * 32;
        raw.latent[r][i] = make_uint2(0, 0);
        raw.scale[r][i] = 0.f;
        if (slot < 0 || eight >= D_C / 8) continue;
        // Entries of 128 + 64 values are multiples of 4 bytes alone.
        const uint32_t* words = reinterpret_cast<const uint32_t*>(entry + eight * 8);
        raw.latent[r][i] = D_C == 128 ? make_uint2(words[0], words[1]) : *reinterpret_cast<const uint2*>(words);
        raw.scale[r][i] = *reinterpret_cast<const float*>(entry + D_C + eight / 16 * 4);
      }
      if (slot >= 0 && lane < D_R / 4) {
        const uint32_t* words = reinterpret_cast<const uint32_t*>(entry + D_C + D_C / 32 + lane * 8);
        raw.rotary[r] = make_uint2(words[0], words[1]);
      }
    }
  }

  static __device__ __forceinline__ void place(const Raw& raw, uint32_t keys, int* slots) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++) {
      const int row = warp + r * WARPS;
      const uint32_t target = keys + row * Base::PITCH;
      if (lane == 0) slots[row] = raw.slot[r];
#pragma unroll
      for (int i = 0; i < EIGHTS; i++) {
        const int eight = lane + i * 32;
        if (eight >= D_C / 8) continue;
        const uint4 v = widenEight(raw.latent[r][i], raw.scale[r][i]);
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(target + eight * 16), "r"(v.x), "r"(v.y), "r"(v.z),
                     "r"(v.w)
                     : "memory");
      }
      if (lane < D_R / 4) {
        asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(target + D_C * 2 + lane * 8), "r"(raw.rotary[r].x),
                     "r"(raw.rotary[r].y)
                     : "memory");
      }
    }
  }

  static __device__ void run(const PartialArguments& a) {
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr int TILE_BYTES = TILE * Base::PITCH;
    const uint32_t keys = sharedAddress(shared), queries = keys + 2 * TILE_BYTES;
    float* scores = reinterpret_cast<float*>(shared + 2 * TILE_BYTES + ROWS * Base::PITCH);
    int* slots = reinterpret_cast<int*>(scores + ROWS * SCORE_PITCH);
    const Share share = shareOf(a);
    if (share.rows == 0) return;
    float top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {}, out[Base::COLUMN_TILES][4] = {};
    Raw raw;
    if (share.from < share.to) {
      Base::loadQueries(a, share, queries);
      commitCopies();
      fetch(a, share, share.from, raw);
      place(raw, keys, slots);
      waitCopies<0>();
    }
    for (int position = share.from, stage = 0; position < share.to; position += TILE, stage ^= 1) {
      const bool more = position + TILE < share.to;
      if (more) fetch(a, share, position + TILE, raw);
      __syncthreads();
      const uint32_t tile = keys + stage * TILE_BYTES;
      Base::score(a, share, position, queries, tile, slots + stage * TILE, scores);
      __syncthreads();
      float rescale[2];
      uint32_t p[2][4];
      Base::softmax(scores, top, sum, rescale, p);
#pragma unroll
      for (int c = 0; c < Base::COLUMN_TILES; c++) {
        for (int i = 0; i < 4; i++) out[c][i] *= rescale[i / 2];
      }
      Base::accumulate(tile, p, out);
      if (more) place(raw, keys + (stage ^ 1) * TILE_BYTES, slots + (stage ^ 1) * TILE);
    }
    for (int half = 0; half < 2; half++) {
      sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
      sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
    }
    Base::store(a, share, top, sum, out);
  }
};

}  // namespace flashmla

#define FP8(D_C, D_R)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS) mlaDecodePartial_fp8_##D_C##_##D_R(                  \
      const void* q, const void* cache, const int* table, const int* lengths, const int* batchCount, float* partials,  \
      int pageSize, int pages, int tableWidth, int sQ, int heads, int splits, int mode, int statsOffset, int counted,  \
      float softmaxScale) {                                                                                            \
    flashmla::Fp8Decode<D_C, D_R>::run({q, cache, table, lengths, batchCount, partials, pageSize, pages, tableWidth,   \
                                        sQ, heads, splits, mode, statsOffset, counted, softmaxScale});                 \
  }

FP8(128, 32)
FP8(128, 64)
FP8(256, 32)
FP8(256, 64)
FP8(512, 32)
FP8(512, 64)
