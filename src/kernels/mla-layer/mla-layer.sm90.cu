// mlaLayer on Hopper: a layer's attention for few tokens in one launch of one block a multiprocessor, which wait for each other's results.
// A block multiplies one head's queries by W_UK, attends for 32 heads to a share of the cached tokens, then merges one head's partial results
// and multiplies them by W_UV. W_UK is asked for before the launch before this one ends; W_UV is called into the second-level cache, bit
// by bit, while attention works, and takes the place of W_UK and of the tiles in shared memory as they are used up. In attention each of
// two warpgroups has tiles and a stage of its own: Sᵀ = K·Qᵀ with 64 cached tokens as the tensor core's rows and 32 heads as its
// columns, then Oᵀ = Vᵀ·Pᵀ.
// What blocks have for each other is its own message: words of two 16-bit values or a float, their bits inverted, into memory that is zero
// until then and set back to zero by the block that needs it last. No number that is computed has all bits set, so a word that is
// not zero is there, and nobody waits for a fence or a flag.
#include "../common/elements.cuh"
#include "../common/sm90.cuh"
#include "../common/append.cuh"

#ifdef STAMPS
// Readings in ns, where a build asks for them: [block][warpgroup][place in the code].
extern "C" __device__ unsigned long long layerStamps[132][3][32];
#undef STAMP
#define NOTE(group, at)                                                                                                \
  asm volatile("{\n.reg .u64 now;\nmov.u64 now, %%globaltimer;\nst.global.u64 [%0], now;\n}" ::"l"(&layerStamps[blockIdx.x][group][at]) : "memory")
#define STAMP(at) \
  if (threadIdx.x % 128 == 0) NOTE(threadIdx.x / 128, at)
#define HELPED(at) \
  if (threadIdx.x % 32 == 0) NOTE(2, at)
#else
#define HELPED(at)
#endif

namespace flashmla {

constexpr int LATENT = 512, ROPE = 64, NOPE = 128, VALUE = 128, ENTRY = LATENT + ROPE;
/** Heads of a block of rows, and cached tokens of a tile. */
constexpr int N = 32;
constexpr int TILE = 64;
/** Sequences at most: a lane each. */
constexpr int MOST_BATCH = 32;
/** Two warpgroups compute; warps of a third bring tiles, bring weights, and append entries. */
constexpr int COMPUTERS = 256, THREADS = 384;
/** Tokens that are multiplied by weights at a time. */
constexpr int TOKENS = 8;
/** Bytes from one token's query to the next, in two 16-bit parts; the same of 512 16-bit values. */
constexpr int INPUT_PITCH = NOPE * 4 + 16, ROW_PITCH = LATENT * 2 + 16;
constexpr int LATENT_BOXES = LATENT / 64, COPIES = 3, GROUP = 3;
/** Room for boxes: the first warpgroup's stage is the last nine, the second's the first nine, the queries come next. */
constexpr int SLOTS = 25, FIRST_STAGE = 16, QUERY_SLOT = 9, EXTRA_SLOT = 14;
/** Warps whose columns of W_UK lie where the second stage goes. */
constexpr int LEFT_WARPS = 5;
/** Outputs move to a new maximum only when it is this much larger, in powers of two. */
constexpr float LAZY = 8.f;
/** Named barriers: of all computers, and of each warpgroup. */
constexpr int ALL = 1, EACH = 2;
/** The mailbox, in words: marks of appended entries, how many have seen each, then queries [token][head], then partial results. */
constexpr int APPENDED = 0, SEEN = 32, QUERIES = 64, QUERY_WORDS = ENTRY / 2;
/** Words of a block's partial result: values, then maximum and sum of each row. */
constexpr int PART_VALUES = N * LATENT / 2, PART_WORDS = PART_VALUES + 2 * N;
/** Cycles that a block waits at most for others to have W_UK, before it asks for W_UV. */
constexpr int COURTESY = 8000;
/** Boxes of W_UV under way at a time, of those that go to their place at once. */
constexpr int VALUE_WINDOW = 3;
/** Cycles from one box of W_UV to the next. */
constexpr int PACE = 600;
/** Boxes of W_UK under way at a time: whatever else is asked for, if only a number, waits behind them. */
constexpr int WINDOW = 6;
/** Box of W_UK after which a block's first tile is asked for. */
constexpr int TILE_AFTER = 11;
/** Cycles after which a block gives up waiting for others: 10 s and more. */
constexpr long long PATIENCE = 20000000000ll;

struct LayerArguments {
  const float *q, *latents, *normWeight;
  const int *positions, *slots;
  const float *rotary, *queryScale;
  uint8_t* cache;
  const int *table, *lengths, *rowCount;
  void* out;
  unsigned* mailbox;
  /** groups: blocks that share the tokens, for each of rowBlocks blocks of rows. */
  int maxRows, heads, interleaved, hasQueryScale, cacheRows, pageSize, tableWidth, outDtype, groups, rowBlocks;
  float epsilon, softmaxScale;
};

/** Ends the kernel with an error when it has waited for others since `start` for too long. */
__device__ __forceinline__ void checkPatience(long long start) {
  if (clock64() - start > PATIENCE) __trap();
}

__device__ __forceinline__ uint32_t loadMail(const unsigned* word) {
  uint32_t v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(word) : "memory");
  return v;
}

__device__ __forceinline__ uint2 loadMail2(const unsigned* words) {
  uint2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(words) : "memory");
  return v;
}

__device__ __forceinline__ uint4 loadMail4(const unsigned* words) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(words) : "memory");
  return v;
}

__device__ __forceinline__ void storeMail2(unsigned* words, uint2 v) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(words), "r"(v.x), "r"(v.y) : "memory");
}

__device__ __forceinline__ void storeMail4(unsigned* words, uint4 v) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(words), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

__device__ __forceinline__ uint4 inverted(uint4 v) { return make_uint4(~v.x, ~v.y, ~v.z, ~v.w); }

/** Whether all words of a message are there. */
__device__ __forceinline__ bool isThere(uint4 v) { return v.x != 0 && v.y != 0 && v.z != 0 && v.w != 0; }

/** Orders ordinary accesses before the copy engine's, and the other way round. */
__device__ __forceinline__ void fenceProxies() { asm volatile("fence.proxy.async;" ::: "memory"); }

__device__ __forceinline__ void callBox(const CUtensorMap* map, int column, int row) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(map), "r"(column), "r"(row) : "memory");
}

/** {@link copyBox} of what is read once: it shall not drive out of the second-level cache what is written and read again. */
__device__ __forceinline__ void copyWeights(uint32_t target, const CUtensorMap* map, int column, int row, uint32_t barrier) {
  constexpr uint64_t EVICT_FIRST = 0x12F0000000000000ull;
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(
                   target),
               "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(EVICT_FIRST)
               : "memory");
}

__device__ __forceinline__ uint32_t transposeMatrix(uint32_t a) {
  uint32_t b;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(b) : "r"(a));
  return b;
}

template <typename T> struct Layer {
  struct Shared {
    uint8_t slots[SLOTS][BOX_BYTES];
    uint8_t probabilities[2][N * 128];
    uint8_t rows[TOKENS * ROW_PITCH];
    uint8_t inputs[TOKENS * INPUT_PITCH];
    /** Of each warpgroup's warps: maxima, then sums. */
    float tops[2][4][N];
    /** Of each warp that merges: maximum and sum of its partial results. */
    float2 merged[COMPUTERS / 32];
    /** Of each warpgroup's rows: maximum and sum. */
    float2 stats[2][N];
    uint64_t weightFull[16], valueFull[16];
    uint64_t tileFull[2][COPIES], tileEmpty[2];
    /** W_UK's columns on the left are multiplied; all are; nobody needs queries any more; nor the stage that stays free. */
    uint64_t leftAbsorbed, absorbed, queriesFree, stageFree;
    /** Tiles before each sequence, and the sequences' lengths; tiles of a group. */
    int prefix[MOST_BATCH + 1], lengths[MOST_BATCH];
    int chunk, total, rowsUsed;
  };
  static_assert(sizeof(Shared) <= 232448, "shared memory of a block");

  /** Results of a warpgroup: its own half of the channels, which it merges, then the other's. */
  using Outputs = float[LATENT_BOXES][N / 2];

  static __device__ __forceinline__ unsigned* queryMail(const LayerArguments& a, int token, int head) {
    return a.mailbox + QUERIES + (static_cast<size_t>(token) * a.heads + head) * QUERY_WORDS;
  }

  /** Where a block of rows' partial result of a piece lies; with each piece, the number of the sequence or of the group is one more. */
  static __device__ __forceinline__ unsigned* partMail(const LayerArguments& a, int slot, int rowBlock) {
    return queryMail(a, a.maxRows, 0) + (static_cast<size_t>(slot) * a.rowBlocks + rowBlock) * PART_WORDS;
  }

  static __device__ __forceinline__ uint8_t* stageOf(Shared& shared, int stage) { return shared.slots[stage == 0 ? FIRST_STAGE : 0]; }

  /** Where a box of W_UV goes: first where only W_UK was, then to the stage that becomes free first, then to the queries' place. */
  static __device__ __forceinline__ int slotOf(int box, int freeStage) {
    return box < 2 ? EXTRA_SLOT + box : box < 11 ? (freeStage == 0 ? FIRST_STAGE : 0) + box - 2 : QUERY_SLOT + box - 11;
  }

  /** Heads of a block of rows. */
  static __device__ __forceinline__ int headsOf(const LayerArguments& a, int rowBlock) { return min(N, a.heads - rowBlock * N); }

  static __device__ __forceinline__ int rowOf(int head, int half) { return head * (NOPE + VALUE) + half * 64; }

  // What comes first --------------------------------------------------------------------------------------------------

  /** How the sequences' tiles are shared out; one warp. */
  static __device__ __forceinline__ void plan(const LayerArguments& a, Shared& shared) {
    const int lane = threadIdx.x % 32, rows = min(*a.rowCount, a.maxRows);
    const int length = lane < rows ? max(0, min(a.lengths[lane], a.tableWidth * a.pageSize)) : 0;
    int sum = (length + TILE - 1) / TILE;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    shared.prefix[lane + 1] = sum;
    shared.lengths[lane] = length;
    const int total = __shfl_sync(~0u, sum, 31);
    if (lane > 0) return;
    shared.prefix[0] = 0;
    shared.total = total;
    shared.chunk = max(1, (total + a.groups - 1) / a.groups);
    shared.rowsUsed = rows;
  }

  static __device__ __forceinline__ void initialise(Shared& shared) {
#pragma unroll 1
    for (int i = 0; i < 16; i++) barrierInit(sharedAddress(&shared.valueFull[i]), 1);
#pragma unroll 1
    for (int stage = 0; stage < 2; stage++) {
#pragma unroll 1
      for (int i = 0; i < COPIES; i++) barrierInit(sharedAddress(&shared.tileFull[stage][i]), 1);
      barrierInit(sharedAddress(&shared.tileEmpty[stage]), 4);
    }
    barrierInit(sharedAddress(&shared.leftAbsorbed), LEFT_WARPS);
    barrierInit(sharedAddress(&shared.absorbed), COMPUTERS / 32);
    barrierInit(sharedAddress(&shared.queriesFree), 1);
    barrierInit(sharedAddress(&shared.stageFree), 4);
    barrierInitFence();
  }

  // The helpers -------------------------------------------------------------------------------------------------------

  /** Asks for a box of a head's W_UK: 64 rows by 64 channels, both boxes of a column next to each other. */
  static __device__ __forceinline__ void askForBox(Shared& shared, const CUtensorMap* map, int head, int i) {
    const uint32_t full = sharedAddress(&shared.weightFull[i]);
    barrierExpect(full, BOX_BYTES);
    copyWeights(sharedAddress(shared.slots[i]), map, i / 2 * 64, rowOf(head, i % 2), full);
  }

  /** Asks for the first boxes of a head's W_UK. */
  static __device__ __forceinline__ void beginWeights(Shared& shared, const CUtensorMap* map, int head) {
#pragma unroll 1
    for (int i = 0; i < 16; i++) barrierInit(sharedAddress(&shared.weightFull[i]), 1);
    barrierInitFence();
#pragma unroll 1
    for (int i = 0; i < WINDOW; i++) askForBox(shared, map, head, i);
  }

  /**
   * Brings the rest of a head's W_UK, then W_UV, at a pace that leaves room for what attention needs: to its place, or near while that is taken; one warp. Not
   * before the other heads have W_UK: the last of them keeps all waiting.
   */
  static __device__ __forceinline__ void bringValues(const LayerArguments& a, Shared& shared, const CUtensorMap* map, int head, int freeStage) {
    const uint32_t absorbed = sharedAddress(&shared.absorbed), stage = sharedAddress(&shared.stageFree), queries = sharedAddress(&shared.queriesFree);
#pragma unroll 1
    for (int i = WINDOW; i < 16; i++) {
      barrierWait(sharedAddress(&shared.weightFull[i - WINDOW]), 0);
      if (threadIdx.x % 32 == 0) askForBox(shared, map, head, i);
      __syncwarp();
    }
    waitForEarlier();
    if (shared.rowsUsed > 0) {
      const long long limit = clock64() + COURTESY;
      const unsigned* last = queryMail(a, 0, min(head / N * N + static_cast<int>(threadIdx.x % 32), a.heads - 1)) + LATENT / 2 - 1;
#pragma unroll 1
      while (!__all_sync(~0u, loadMail(last) != 0) && __shfl_sync(~0u, clock64() < limit, 0)) {
      }
    }
    if (threadIdx.x % 32 > 0) return;
    HELPED(1);
    auto ask = [&](int i) {
      const uint32_t full = sharedAddress(&shared.valueFull[i]);
      barrierExpect(full, BOX_BYTES);
      copyWeights(sharedAddress(shared.slots[slotOf(i, freeStage)]), map, i / 2 * 64, rowOf(head, 2 + i % 2), full);
    };
    unsigned asked = 0;
    long long next = clock64();
#pragma unroll 1
    for (int i = 0; i < 16; i++) {
      if (barrierTest(absorbed, 0) && (i < 2 || barrierTest(i < 11 ? stage : queries, 0))) {
        if (i >= VALUE_WINDOW && (asked >> (i - VALUE_WINDOW) & 1) != 0) barrierWait(sharedAddress(&shared.valueFull[i - VALUE_WINDOW]), 0);
        ask(i);
        asked |= 1u << i;
      } else {
#pragma unroll 1
        while (clock64() < next) {
        }
        next = clock64() + PACE;
        callBox(map, i / 2 * 64, rowOf(head, 2 + i % 2));
      }
    }
    HELPED(2);
    barrierWait(absorbed, 0);
#pragma unroll 1
    for (int i = 0; i < 16; i++) {
      if (i == 2) barrierWait(stage, 0);
      if (i == 11) barrierWait(queries, 0);
      if ((asked >> i & 1) == 0) ask(i);
    }
    HELPED(3);
    // No copy may be on its way when the block ends, even if there is nothing to multiply.
#pragma unroll 1
    for (int i = 0; i < 16; i++) barrierWait(sharedAddress(&shared.valueFull[i]), 0);
  }

  /** Waits for a sequence's new entry. The last block of rows that has seen the mark takes it away. */
  static __device__ __forceinline__ void seeAppended(const LayerArguments& a, int sequence) {
    const long long start = clock64();
#pragma unroll 1
    while (loadAcquire(a.mailbox + APPENDED + sequence) == 0) checkPatience(start);
    fenceProxies();
    if (incrementOrdered(a.mailbox + SEEN + sequence, a.rowBlocks - 1) == a.rowBlocks - 1) a.mailbox[APPENDED + sequence] = 0;
  }

  /** Brings the tiles of this block's share; one warp. */
  static __device__ __forceinline__ void bringTiles(const LayerArguments& a, Shared& shared, const CUtensorMap* map, bool weighs, int begin, int end) {
    const int lane = threadIdx.x % 32, pageShift = 31 - __clz(a.pageSize);
    int sequence = 0, page = 0;
    waitForEarlier();
    if (weighs) barrierWait(sharedAddress(&shared.weightFull[TILE_AFTER]), 0);
#pragma unroll 1
    for (int unit = begin; unit < end; unit++) {
      const int index = unit - begin, stage = index & 1;
      if ((index & 31) == 0) {
        // A lane finds the page of a tile each.
        const int own = unit + lane;
        int s = 0;
#pragma unroll 1
        while (s < MOST_BATCH - 1 && shared.prefix[s + 1] <= own) s++;
        page = own < end ? a.table[s * a.tableWidth + ((own - shared.prefix[s]) * TILE >> pageShift)] : 0;
      }
#pragma unroll 1
      while (shared.prefix[sequence + 1] <= unit) sequence++;
      const int tile = unit - shared.prefix[sequence];
      const int row = (__shfl_sync(~0u, page, index & 31) << pageShift) + (tile * TILE & (a.pageSize - 1));
      if (index == 1) barrierWait(sharedAddress(&shared.leftAbsorbed), 0);
      barrierWait(sharedAddress(&shared.tileEmpty[stage]), (index >> 1 & 1) ^ 1);
      if (lane == 0) {
        if (unit + 1 == shared.prefix[sequence + 1]) {
          seeAppended(a, sequence);
        }
        if (index == 0) HELPED(0);
        const uint32_t target = sharedAddress(stageOf(shared, stage));
#pragma unroll
        for (int copy = 0; copy < COPIES; copy++) {
          const uint32_t full = sharedAddress(&shared.tileFull[stage][copy]);
          barrierExpect(full, GROUP * BOX_BYTES);
          copyBoxes(target + copy * GROUP * BOX_BYTES, map, row, copy * GROUP, full);
        }
      }
      __syncwarp();
    }
  }

  /** One token's entry, normalised and turned, to the cache; one warp. */
  static __device__ __forceinline__ void appendRow(const LayerArguments& a, Shared& shared, int row) {
    const int lane = threadIdx.x % 32, slot = a.slots[row];
    if (static_cast<unsigned>(slot) < static_cast<unsigned>(a.cacheRows)) {
      const float* source = a.latents + static_cast<size_t>(row) * ENTRY;
      float4 v[4];
      float squares = 0.f;
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = __ldcg(reinterpret_cast<const float4*>(source) + i * 32 + lane);
      const int2 at = channelsOf(lane, ROPE, a.interleaved);
      const float x = __ldcg(source + LATENT + at.x), y = __ldcg(source + LATENT + at.y);
#pragma unroll
      for (int i = 0; i < 4; i++) squares += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
      const float scale = 1.f / sqrtf(sumOfWarp(squares) / LATENT + a.epsilon);
      T* target = reinterpret_cast<T*>(a.cache) + static_cast<size_t>(slot) * ENTRY;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float4 w = reinterpret_cast<const float4*>(a.normWeight)[i * 32 + lane];
        const uint2 words = make_uint2(pack<T>(v[i].x * scale * w.x, v[i].y * scale * w.y), pack<T>(v[i].z * scale * w.z, v[i].w * scale * w.w));
        reinterpret_cast<uint2*>(target)[i * 32 + lane] = words;
      }
      const float2 turned = rotated(x, y, a.rotary + static_cast<size_t>(a.positions[row]) * ROPE, lane, ROPE);
      target[LATENT + at.x] = narrow<T>(turned.x);
      target[LATENT + at.y] = narrow<T>(turned.y);
    }
    fenceProxies();
    __syncwarp();
    if (lane == 0 && shared.lengths[row] > 0) asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(a.mailbox + APPENDED + row) : "memory");
  }

  static __device__ __forceinline__ void help(const LayerArguments& a, Shared& shared) {
    waitForEarlier();
#pragma unroll 1
    for (int row = gridDim.x - 1 - blockIdx.x; row < shared.rowsUsed; row += gridDim.x) appendRow(a, shared, row);
    HELPED(4);
  }

  // W_UK --------------------------------------------------------------------------------------------------------------

  /**
   * Queries of 8 tokens from `first` on to shared memory, as two 16-bit parts each: their sum differs from the value by 2^-17 of it. Their
   * rotary parts, turned, to the mailbox. A warp has a token.
   */
  static __device__ __forceinline__ void loadInputs(const LayerArguments& a, Shared& shared, int head, int first, int rows) {
    const int token = threadIdx.x / 32, quad = threadIdx.x % 32;
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    if (first + token < rows) {
      const size_t row = static_cast<size_t>(first + token) * a.heads + head;
      const float* source = a.q + row * (NOPE + ROPE);
      const int position = a.positions[first + token];
      const int2 at = channelsOf(quad, ROPE, a.interleaved);
      v = __ldcg(reinterpret_cast<const float4*>(source) + quad);
      const float x = __ldcg(source + NOPE + at.x), y = __ldcg(source + NOPE + at.y), scale = a.hasQueryScale ? a.queryScale[position] : 1.f;
      const float2 turned = rotated(x, y, a.rotary + static_cast<size_t>(position) * ROPE, quad, ROPE);
      // A lane has a pair of channels that turn together; it sends two neighbouring ones.
      float low = turned.x * scale, high = turned.y * scale;
      if (!a.interleaved) {
        const int from = quad * 2 % 32;
        const float x0 = __shfl_sync(~0u, low, from), x1 = __shfl_sync(~0u, low, from + 1);
        const float y0 = __shfl_sync(~0u, high, from), y1 = __shfl_sync(~0u, high, from + 1);
        low = quad < 16 ? x0 : y0;
        high = quad < 16 ? x1 : y1;
      }
      __stcg(queryMail(a, first + token, head) + LATENT / 2 + quad, ~pack<T>(low, high));
    }
    const uint2 high = make_uint2(pack<T>(v.x, v.y), pack<T>(v.z, v.w));
    const float2 x = unpack<T>(high.x), y = unpack<T>(high.y);
    uint8_t* target = shared.inputs + token * INPUT_PITCH + quad * 8;
    *reinterpret_cast<uint2*>(target) = high;
    *reinterpret_cast<uint2*>(target + NOPE * 2) = make_uint2(pack<T>(v.x - x.x, v.y - x.y), pack<T>(v.z - y.x, v.w - y.y));
  }

  /** A warp's 64 channels of 8 tokens' absorbed queries. */
  static __device__ __forceinline__ void absorbTokens(const LayerArguments& a, Shared& shared, int head, int first, int rows) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, matrix = lane / 8;
    const uint32_t inputs = sharedAddress(shared.inputs) + lane % 8 * INPUT_PITCH + matrix / 2 * (NOPE * 2) + matrix % 2 * 16;
    float out[2][4][4] = {}, scale[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int token = first + lane % 4 * 2 + i;
      scale[i] = a.hasQueryScale && token < rows ? a.queryScale[a.positions[token]] : 1.f;
    }
#pragma unroll
    for (int step = 0; step < NOPE / 16; step++) {
      if (step % 4 == 0) barrierWait(sharedAddress(&shared.weightFull[warp * 2 + step / 4]), 0);
      const uint32_t box = sharedAddress(shared.slots[warp * 2 + step / 4]);
      uint32_t query[4], weight[4][4];
      loadMatrices(query, inputs + step * 32);
#pragma unroll
      for (int m = 0; m < 4; m++) {
        loadMatricesTransposed(weight[m], swizzled(box, step % 4 * 16 + lane / 16 * 8 + lane % 8, m * 2 + lane / 8 % 2));
      }
#pragma unroll
      for (int m = 0; m < 4; m++) {
        multiply<T>(out[0][m], weight[m], query[0], query[1]);
        multiply<T>(out[1][m], weight[m], query[2], query[3]);
      }
    }
    const uint32_t results = sharedAddress(shared.rows) + warp * 128;
#pragma unroll
    for (int m = 0; m < 4; m++) {
      float total[4];
#pragma unroll
      for (int i = 0; i < 4; i++) total[i] = (out[0][m][i] + out[1][m][i]) * scale[i % 2];
      storeMatricesTransposed(results + lane % 8 * ROW_PITCH + (m * 2 + lane / 8 % 2) * 16, pack<T>(total[0], total[1]), pack<T>(total[2], total[3]));
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int own = i * 4 + lane / 8, token = first + own;
      if (token >= rows) continue;
      const uint4 v = *reinterpret_cast<const uint4*>(shared.rows + own * ROW_PITCH + warp * 128 + lane % 8 * 16);
      storeMail4(queryMail(a, token, head) + warp * 32 + lane % 8 * 4, inverted(v));
    }
  }

  static __device__ __forceinline__ void absorb(const LayerArguments& a, Shared& shared, int head) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rows = shared.rowsUsed;
    if (head < a.heads) {
#pragma unroll 1
      for (int first = 0; first < rows; first += TOKENS) {
        if (first > 0) meet(ALL, COMPUTERS);
        loadInputs(a, shared, head, first, rows);
        meet(ALL, COMPUTERS);
        absorbTokens(a, shared, head, first, rows);
        __syncwarp();
      }
    }
    if (lane > 0) return;
    if (warp < LEFT_WARPS) barrierArrive(sharedAddress(&shared.leftAbsorbed));
    barrierArrive(sharedAddress(&shared.absorbed));
  }

  // Attention ---------------------------------------------------------------------------------------------------------

  /** The queries of a block of rows of one token, as soon as they are there, to shared memory; zeros for heads past the last one. */
  static __device__ __forceinline__ void loadQueries(const LayerArguments& a, Shared& shared, int token, int rowBlock) {
    constexpr int UNITS = ENTRY / 8, COUNT = N * UNITS / COMPUTERS;
    const int thread = threadIdx.x, rows = headsOf(a, rowBlock);
    const unsigned* mail = queryMail(a, token, rowBlock * N);
    const uint32_t queries = sharedAddress(shared.slots[QUERY_SLOT]);
    const long long start = clock64();
    // A word of each head and warp that multiplied: what it sent last, at a guess.
    const unsigned* last = mail + min(thread % 32, rows - 1) * QUERY_WORDS + thread / 32 * 32 + 31;
#pragma unroll 1
    while (loadMail(last) == 0) checkPatience(start);
    meet(ALL, COMPUTERS);
    uint4 v[COUNT];
    bool there;
#pragma unroll 1
    do {
      there = true;
#pragma unroll
      for (int k = 0; k < COUNT; k++) {
        const int i = thread + k * COMPUTERS;
        v[k] = make_uint4(~0u, ~0u, ~0u, ~0u);
        if (i / UNITS < rows) v[k] = loadMail4(mail + i * 4);
      }
#pragma unroll
      for (int k = 0; k < COUNT; k++) there = there && isThere(v[k]);
      checkPatience(start);
    } while (!there);
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
      const int i = thread + k * COMPUTERS, row = i / UNITS, unit = i % UNITS;
      storeShared16(swizzled(queries + unit / 8 * (N * 128), row, unit % 8), inverted(v[k]));
    }
  }

  /** Of a thread's eight columns, the largest or the sum over the tile's rows: over its warp here, over the warpgroup in shared memory. */
  template <typename Operation>
  static __device__ __forceinline__ void reduceColumns(Shared& shared, int group, float (&v)[8], Operation combine) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    // Lanes that share columns give each other half of what they have, until each has one.
    const bool high[3] = {(lane & 16) != 0, (lane & 8) != 0, (lane & 4) != 0};
#pragma unroll
    for (int round = 0; round < 3; round++) {
      const int half = 4 >> round;
#pragma unroll
      for (int c = 0; c < half; c++) {
        const float sent = high[round] ? v[c] : v[c + half], kept = high[round] ? v[c + half] : v[c];
        v[c] = combine(kept, __shfl_xor_sync(~0u, sent, 16 >> round));
      }
    }
    // Bits 4 to 2 of the lane are the column's number among the eight.
    shared.tops[group][warp][(lane >> 3) * 8 + lane % 4 * 2 + (lane >> 2 & 1)] = v[0];
    meet(EACH + group, 128);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      float2 all[4];
#pragma unroll
      for (int w = 0; w < 4; w++) all[w] = reinterpret_cast<const float2*>(shared.tops[group][w])[j * 4 + lane % 4];
      v[j * 2] = combine(combine(all[0].x, all[1].x), combine(all[2].x, all[3].x));
      v[j * 2 + 1] = combine(combine(all[0].y, all[1].y), combine(all[2].y, all[3].y));
    }
  }

  /** One tile of a warpgroup's, after `any` others of the same sequence; `visible` of its tokens are there. */
  static __device__ __forceinline__ void attendTile(Shared& shared, int group, int parity, int visible, bool any, float scale,
                                                    float (&top)[8], float (&sum)[8], Outputs& out) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint32_t keys = sharedAddress(stageOf(shared, group)), queries = sharedAddress(shared.slots[QUERY_SLOT]);
    const uint32_t probabilities = sharedAddress(shared.probabilities[group]);
    const uint64_t key = describe(keys), query = describe(queries), probability = describe(probabilities);
    float s[N / 2];
#pragma unroll
    for (int copy = 0; copy < COPIES; copy++) {
      barrierWait(sharedAddress(&shared.tileFull[group][copy]), parity);
      warpgroupArrive();
#pragma unroll
      for (int box = copy * GROUP; box < copy * GROUP + GROUP; box++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
          const int keyOffset = box * BOX_BYTES + k * 32, queryOffset = box * N * 128 + k * 32;
          if (box == 0 && k == 0) Wgmma<T, N, 0, 0>::start(s, key, query);
          else Wgmma<T, N, 0, 0>::run(s, key + keyOffset / 16, query + queryOffset / 16);
        }
      }
    }
    warpgroupCommit();
    warpgroupWait<0>();
    pin(s);
    STAMP(11);
    const int token = warp * 16 + lane / 4;
    const bool low = token < visible, high = token + 8 < visible;
    float most[8];
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[i] = (i % 4 < 2 ? low : high) ? s[i] * scale : NEGATIVE_INFINITY;
#pragma unroll
    for (int c = 0; c < 8; c++) most[c] = fmaxf(s[c / 2 * 4 + c % 2], s[c / 2 * 4 + c % 2 + 2]);
    reduceColumns(shared, group, most, [](float x, float y) { return fmaxf(x, y); });
    bool rises = false;
#pragma unroll
    for (int c = 0; c < 8; c++) rises = rises || most[c] > top[c] + LAZY;
    if (!any) {
#pragma unroll
      for (int c = 0; c < 8; c++) top[c] = most[c];
    } else if (__any_sync(~0u, rises)) {
      float factor[8];
#pragma unroll
      for (int c = 0; c < 8; c++) {
        const bool moves = most[c] > top[c] + LAZY;
        factor[c] = moves ? exp2Fast(top[c] - most[c]) : 1.f;
        top[c] = moves ? most[c] : top[c];
        sum[c] *= factor[c];
      }
#pragma unroll
      for (int box = 0; box < LATENT_BOXES; box++) {
#pragma unroll
        for (int i = 0; i < N / 2; i++) out[box][i] *= factor[i / 4 * 2 + i % 2];
      }
    }
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
      const int c = i / 4 * 2 + i % 2;
      s[i] = exp2Fast(s[i] - (top[c] == NEGATIVE_INFINITY ? 0.f : top[c]));
      sum[c] += s[i];
    }
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      const uint32_t target = swizzled(probabilities, (j + lane / 16) * 8 + lane % 8, warp * 2 + lane / 8 % 2);
      storeMatricesTransposed(target, pack<T>(s[j * 4], s[j * 4 + 1]), pack<T>(s[j * 4 + 2], s[j * 4 + 3]), pack<T>(s[j * 4 + 4], s[j * 4 + 5]),
                              pack<T>(s[j * 4 + 6], s[j * 4 + 7]));
    }
    if (visible < TILE) {
      // Memory past a sequence may hold NaN, and 0 · NaN is NaN.
      const int chunks = (TILE - visible) * 8;
#pragma unroll 1
      for (int i = threadIdx.x % 128; i < chunks * LATENT_BOXES; i += 128) {
        storeShared16(keys + i / chunks * BOX_BYTES + visible * 128 + i % chunks * 16, make_uint4(0, 0, 0, 0));
      }
    }
    fenceForAsync();
    meet(EACH + group, 128);
    STAMP(12);
    const uint64_t mine = key + group * (LATENT_BOXES / 2 * BOX_BYTES / 16), others = key + (1 - group) * (LATENT_BOXES / 2 * BOX_BYTES / 16);
#pragma unroll
    for (int box = 0; box < LATENT_BOXES; box++) pin(out[box]);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int box = 0; box < LATENT_BOXES; box++) {
        const uint64_t value = box < LATENT_BOXES / 2 ? mine : others;
        Wgmma<T, N, 1, 0>::run(out[box], value + (box % (LATENT_BOXES / 2) * BOX_BYTES + k * 2048) / 16, probability + k * 2);
      }
    }
    warpgroupCommit();
    warpgroupWait<0>();
#pragma unroll
    for (int box = 0; box < LATENT_BOXES; box++) pin(out[box]);
    if (lane == 0) barrierArrive(sharedAddress(&shared.tileEmpty[group]));
  }

  /** Channel of value `k` (0 … 7) of unit `unit` of a partial result: {@link publish} writes them as the tensor core leaves them. */
  static __device__ __forceinline__ int channelOf(int unit, int k) {
    return ((unit >> 5) * 4 + (unit >> 2 & 1) * 2 + (k >> 2)) * 64 + (unit >> 3 & 3) * 16 + (k >> 1 & 1) * 8 + (unit & 3) * 2 + (k & 1);
  }

  /** Where unit `unit` of a row lies in a block's partial result, in words: half of the channels after the other, as {@link publish} stores them. */
  static __device__ __forceinline__ int unitAt(int row, int unit) {
    return (unit >> 5) * (PART_VALUES / 2) + ((unit >> 2 & 1) * 4 + row / 8) * 512 + (unit >> 3 & 3) * 128 + row % 8 * 16 + (unit & 3) * 4;
  }

  /** Four boxes of a warpgroup's results, each column times its factor, as words of two channels of a column; box by box, then column. */
  static __device__ __forceinline__ uint32_t wordOf(const Outputs& out, int box, int pair, const float (&factor)[8]) {
    const float* v = &out[box][pair * 2];
    return pack<T>(v[0] * factor[pair / 2 * 2], v[1] * factor[pair / 2 * 2 + 1]);
  }

  /**
   * Both warpgroups' results of a piece of a sequence, merged and divided by their sums, to the mailbox in 16 bits. Each
   * merges half of the channels and has the other half from the other one, by way of the queries' place.
   */
  static __device__ __forceinline__ void publish(const LayerArguments& a, Shared& shared, int group, int slot, int rowBlock, const float (&top)[8],
                                                 float (&sum)[8], Outputs& out) {
    constexpr int OTHERS = LATENT_BOXES / 2;
    const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
    reduceColumns(shared, group, sum, [](float x, float y) { return x + y; });
    float factor[8];
#pragma unroll
    for (int c = 0; c < 8; c++) factor[c] = sum[c] > 0.f ? __fdividef(1.f, sum[c]) : 0.f;
    if (warp == 0 && lane < 4) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        *reinterpret_cast<float4*>(&shared.stats[group][j * 8 + lane * 2]) = make_float4(top[j * 2], sum[j * 2], top[j * 2 + 1], sum[j * 2 + 1]);
      }
    }
    // Both warpgroups are through with the queries.
    meet(ALL, COMPUTERS);
    const uint32_t room = sharedAddress(shared.slots[QUERY_SLOT]) + thread * 16;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      uint4 v;
      v.x = wordOf(out, OTHERS + i / 2, i % 2 * 4, factor);
      v.y = wordOf(out, OTHERS + i / 2, i % 2 * 4 + 1, factor);
      v.z = wordOf(out, OTHERS + i / 2, i % 2 * 4 + 2, factor);
      v.w = wordOf(out, OTHERS + i / 2, i % 2 * 4 + 3, factor);
      storeShared16(room + (group * 8 + i) * 2048, v);
    }
    meet(ALL, COMPUTERS);
    unsigned* part = partMail(a, slot, rowBlock);
    const int rows = headsOf(a, rowBlock);
    float other[8];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float4 stats = *reinterpret_cast<const float4*>(&shared.stats[1 - group][j * 8 + lane % 4 * 2]);
      float whole[2], most[2];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int c = j * 2 + i;
        const float otherTop = i == 0 ? stats.x : stats.z, otherSum = i == 0 ? stats.y : stats.w;
        most[i] = fmaxf(top[c], otherTop);
        const float mine = exp2Fast(top[c] - most[i]), theirs = exp2Fast(otherTop - most[i]) * otherSum;
        whole[i] = mine * sum[c] + theirs;
        const float inverse = __fdividef(1.f, whole[i]);
        factor[c] = mine * inverse;
        other[c] = theirs * inverse;
      }
      if (group == 0 && warp == 0 && lane < 4) {
        unsigned* stats = part + PART_VALUES + (j * 8 + lane * 2) * 2;
        if (j * 8 + lane * 2 < rows) storeMail2(stats, make_uint2(~__float_as_uint(most[0]), ~__float_as_uint(whole[0])));
        if (j * 8 + lane * 2 + 1 < rows) storeMail2(stats + 2, make_uint2(~__float_as_uint(most[1]), ~__float_as_uint(whole[1])));
      }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint4 v = loadShared16(room + ((1 - group) * 8 + i) * 2048);
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const int at = (i % 2 * 4 + w) * 2, c = at / 4 * 2;
        const float2 theirs = unpack<T>(words[w]);
        float* mine = &out[i / 2][at];
        mine[0] = mine[0] * factor[c] + theirs.x * other[c];
        mine[1] = mine[1] * factor[c + 1] + theirs.y * other[c + 1];
      }
    }
    // What a warp stores has 64 bytes of a row each.
    unsigned* target = part + group * (PART_VALUES / 2) + thread * 4;
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t words[4];
#pragma unroll
        for (int w = 0; w < 4; w++) {
          const float* v = &out[pair * 2 + w / 2][j * 4 + w % 2 * 2];
          words[w] = transposeMatrix(pack<T>(v[0], v[1]));
        }
        if (j * 8 + lane / 4 < rows) storeMail4(target + (pair * 4 + j) * 512, make_uint4(~words[0], ~words[1], ~words[2], ~words[3]));
      }
    }
  }

  static __device__ __forceinline__ void attend(const LayerArguments& a, Shared& shared, int group, int rowBlock, int begin, int end, int chunkGroup) {
    const int lane = threadIdx.x % 32;
    const float scale = a.softmaxScale * LOG2_E;
    int tiles = 0, sequence = 0;
#pragma unroll 1
    for (int unit = begin; unit < end;) {
#pragma unroll 1
      while (shared.prefix[sequence + 1] <= unit) sequence++;
      const int start = shared.prefix[sequence], stop = min(end, shared.prefix[sequence + 1]), length = shared.lengths[sequence];
      if (unit == begin) {
        // Queries take the place of W_UK.
        barrierWait(sharedAddress(&shared.absorbed), 0);
      } else {
        meet(ALL, COMPUTERS);
      }
      loadQueries(a, shared, sequence, rowBlock);
      fenceForAsync();
      meet(ALL, COMPUTERS);
      STAMP(4);
      float top[8], sum[8];
      Outputs out;
#pragma unroll
      for (int c = 0; c < 8; c++) top[c] = NEGATIVE_INFINITY, sum[c] = 0.f;
#pragma unroll
      for (int box = 0; box < LATENT_BOXES; box++) {
#pragma unroll
        for (int i = 0; i < N / 2; i++) out[box][i] = 0.f;
      }
      int tile = unit + ((unit - begin ^ group) & 1);
      const int firstTile = tile;
#pragma unroll 1
      for (; tile < stop; tile += 2, tiles++) {
        attendTile(shared, group, tiles & 1, min(TILE, length - (tile - start) * TILE), tile > firstTile, scale, top, sum, out);
      }
      STAMP(5);
      // No tile comes to one of the stages any more.
      if (stop == end && end - begin > 1 && group == ((end - begin) & 1) && lane == 0) barrierArrive(sharedAddress(&shared.stageFree));
      publish(a, shared, group, sequence + chunkGroup, rowBlock, top, sum, out);
      STAMP(6);
      unit = stop;
    }
  }

  // W_UV --------------------------------------------------------------------------------------------------------------

  /** Partial results that a warp takes at a time. */
  static constexpr int AT_ONCE = 5;

  /** Where a warp's share of merged values lies, float32 [unit][8]: in the stage that no W_UV goes to. */
  static __device__ __forceinline__ float* mergedOf(Shared& shared, int freeStage, int warp) {
    return reinterpret_cast<float*>(stageOf(shared, 1 - freeStage)) + warp * LATENT;
  }

  /** Adds up partial results `from`, `from` + `step`, … of one head of a sequence, for this lane's units; to shared memory. Takes them away. */
  static __device__ __forceinline__ void mergeParts(const LayerArguments& a, Shared& shared, int head, int sequence, int from, int step, int freeStage) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, start = shared.prefix[sequence], stop = shared.prefix[sequence + 1];
    const int first = start / shared.chunk, count = stop > start ? (stop - 1) / shared.chunk - first + 1 : 0;
    unsigned* mail = partMail(a, sequence + first, head / N);
    const int stride = a.rowBlocks * PART_WORDS;
    const int row = head % N, units[2] = {unitAt(row, lane), unitAt(row, lane + 32)};
    float value[16] = {}, top = NEGATIVE_INFINITY, sum = 0.f;
    const long long begin = clock64();
#pragma unroll 1
    for (int i = from; i < count; i += step * AT_ONCE) {
      uint2 stat[AT_ONCE];
      uint4 v[AT_ONCE][2];
#pragma unroll 1
      while (true) {
        bool there = true;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
          const unsigned* part = mail + (i + k * step) * stride;
          stat[k] = make_uint2(~__float_as_uint(NEGATIVE_INFINITY), ~0u);
          v[k][0] = v[k][1] = make_uint4(~0u, ~0u, ~0u, ~0u);
          if (i + k * step < count) {
            stat[k] = loadMail2(part + PART_VALUES + row * 2);
#pragma unroll
            for (int half = 0; half < 2; half++) v[k][half] = loadMail4(part + units[half]);
          }
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) there = there && stat[k].x != 0 && stat[k].y != 0 && isThere(v[k][0]) && isThere(v[k][1]);
        if (__all_sync(~0u, there)) break;
        // Until all seem to be there, a lane asks for one word of each: of this warp's, since others take theirs away.
        const int own = i + lane % AT_ONCE * step;
        const unsigned* last = mail + (own < count ? own : i) * stride + PART_VALUES + row * 2;
#pragma unroll 1
        while (!__all_sync(~0u, loadMail(last) != 0)) checkPatience(begin);
        checkPatience(begin);
      }
      float most = top;
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) most = fmaxf(most, __uint_as_float(~stat[k].x));
      const float before = exp2Fast(top - most);
      top = most;
      sum *= before;
#pragma unroll
      for (int u = 0; u < 16; u++) value[u] *= before;
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        const float weight = exp2Fast(__uint_as_float(~stat[k].x) - most) * __uint_as_float(~stat[k].y);
        if (i + k * step < count) {
          sum += weight;
          unsigned* part = mail + (i + k * step) * stride;
#pragma unroll
          for (int half = 0; half < 2; half++) {
            storeMail4(part + units[half], make_uint4(0, 0, 0, 0));
            const uint4 mail = inverted(v[k][half]);
            const uint32_t words[4] = {mail.x, mail.y, mail.z, mail.w};
#pragma unroll
            for (int word = 0; word < 4; word++) {
              const float2 two = unpack<T>(words[word]);
              value[half * 8 + word * 2] += weight * two.x;
              value[half * 8 + word * 2 + 1] += weight * two.y;
            }
          }
          if (lane == 0) storeMail2(part + PART_VALUES + row * 2, make_uint2(0, 0));
        }
      }
    }
    float4* target = reinterpret_cast<float4*>(mergedOf(shared, freeStage, warp));
#pragma unroll
    for (int q = 0; q < 4; q++) {
      target[(q / 2 * 32 + lane) * 2 + q % 2] = make_float4(value[q * 4], value[q * 4 + 1], value[q * 4 + 2], value[q * 4 + 3]);
    }
    if (lane == 0) shared.merged[warp] = make_float2(top, sum);
  }

  /** Warps of one token's share: its attention's result in 16 bits, two channels a thread. */
  static __device__ __forceinline__ void combine(Shared& shared, int token, int warps, int freeStage) {
    const int thread = threadIdx.x;
    constexpr int WARPS = COMPUTERS / 32;
    float top = NEGATIVE_INFINITY, sum = 0.f;
    float2 total = make_float2(0.f, 0.f), stat[WARPS], value[WARPS];
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      stat[w] = w < warps ? shared.merged[token * warps + w] : make_float2(NEGATIVE_INFINITY, 0.f);
      value[w] = make_float2(0.f, 0.f);
      if (w < warps) value[w] = reinterpret_cast<const float2*>(mergedOf(shared, freeStage, token * warps + w))[thread];
      top = fmaxf(top, stat[w].x);
    }
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float weight = stat[w].y > 0.f ? exp2Fast(stat[w].x - top) : 0.f;
      const float2 v = value[w];
      sum += weight * stat[w].y;
      total.x += weight * v.x;
      total.y += weight * v.y;
    }
    const float inverse = sum > 0.f ? 1.f / sum : 0.f;
    *reinterpret_cast<uint32_t*>(shared.rows + token * ROW_PITCH + channelOf(thread / 4, thread % 4 * 2) * 2) = pack<T>(total.x * inverse, total.y * inverse);
  }

  static __device__ __forceinline__ void project(const LayerArguments& a, Shared& shared, int head, int freeStage) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rows = shared.rowsUsed;
    auto loadColumn = [&](int column, uint32_t (&weights)[4][4]) {
      const int box = column * 2 + warp / 4;
      barrierWait(sharedAddress(&shared.valueFull[box]), 0);
      const uint32_t at = sharedAddress(shared.slots[slotOf(box, freeStage)]);
#pragma unroll
      for (int step = 0; step < 4; step++) {
        loadMatrices(weights[step], swizzled(at, warp % 4 * 16 + lane / 8 % 2 * 8 + lane % 8, step * 2 + lane / 16));
      }
    };
    STAMP(9);
#pragma unroll 1
    for (int first = 0; first < rows; first += TOKENS) {
      const int tokens = min(TOKENS, rows - first), warps = tokens == 1 ? 8 : tokens == 2 ? 4 : tokens <= 4 ? 2 : 1;
      if (first > 0) meet(ALL, COMPUTERS);
      if (warp / warps < tokens) mergeParts(a, shared, head, first + warp / warps, warp % warps, warps, freeStage);
      meet(ALL, COMPUTERS);
#pragma unroll 1
      for (int token = 0; token < tokens; token++) combine(shared, token, warps, freeStage);
      // All blocks that had use for this head's queries have sent what came of them.
#pragma unroll 1
      for (int i = threadIdx.x; i < tokens * (QUERY_WORDS / 4); i += COMPUTERS) {
        storeMail4(queryMail(a, first + i / (QUERY_WORDS / 4), head) + i % (QUERY_WORDS / 4) * 4, make_uint4(0, 0, 0, 0));
      }
      meet(ALL, COMPUTERS);
      STAMP(10);
      float out[4][4] = {};
      const uint32_t x = sharedAddress(shared.rows) + lane % 8 * ROW_PITCH + lane / 8 * 16;
      uint32_t weights[2][4][4];
      loadColumn(0, weights[0]);
      STAMP(8);
#pragma unroll
      for (int column = 0; column < LATENT_BOXES; column++) {
        if (column + 1 < LATENT_BOXES) loadColumn(column + 1, weights[(column + 1) % 2]);
#pragma unroll
        for (int step = 0; step < 4; step += 2) {
          uint32_t v[4];
          loadMatrices(v, x + (column * 4 + step) * 32);
          multiply<T>(out[step], weights[column % 2][step], v[0], v[1]);
          multiply<T>(out[step + 1], weights[column % 2][step + 1], v[2], v[3]);
        }
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = first + lane % 4 * 2 + i % 2, row = warp * 16 + lane / 4 + i / 2 * 8;
        const float total = (out[0][i] + out[1][i]) + (out[2][i] + out[3][i]);
        if (token < rows) storeStored(a.out, a.outDtype, (static_cast<size_t>(token) * a.heads + head) * VALUE + row, total);
      }
    }
  }

  // All of it ---------------------------------------------------------------------------------------------------------

  static __device__ __forceinline__ void compute(const LayerArguments& a, Shared& shared, int head, int rowBlock, int chunkGroup, int begin, int end) {
    const int group = uniform(threadIdx.x / 128), lane = threadIdx.x % 32, freeStage = (end - begin) & 1;
    // A stage that no tile needs is free from the beginning.
    const bool early = group == freeStage && end - begin <= 1;
    waitForEarlier();
    STAMP(1);
    absorb(a, shared, head);
    if (early && lane == 0) barrierArrive(sharedAddress(&shared.stageFree));
    STAMP(2);
    if (begin < end) attend(a, shared, group, rowBlock, begin, end, chunkGroup);
    // Both warpgroups are through with their stages and with what they gave each other.
    meet(ALL, COMPUTERS);
    if (threadIdx.x == 0) barrierArrive(sharedAddress(&shared.queriesFree));
    STAMP(7);
    if (head >= a.heads) return;
    project(a, shared, head, freeStage);
    STAMP(13);
  }

  static __device__ __forceinline__ void run(const LayerArguments& a, const CUtensorMap* weightMap, const CUtensorMap* cacheMap) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    letNextBegin();
    STAMP(0);
    const int warp = uniform(threadIdx.x / 32), head = blockIdx.x, lane = threadIdx.x % 32;
    if (threadIdx.x == COMPUTERS + 32 && head < a.heads) beginWeights(shared, weightMap, head);
    if (warp == COMPUTERS / 32) {
      if (lane == 0) {
        prefetchMap(cacheMap);
        initialise(shared);
      }
      plan(a, shared);
    }
    __syncthreads();
    const int chunkGroup = head / a.rowBlocks, rowBlock = head % a.rowBlocks, most = chunkGroup < a.groups ? shared.total : 0;
    const int begin = min(most, chunkGroup * shared.chunk), end = min(most, begin + shared.chunk);
    if (warp < COMPUTERS / 32) {
      takeRegisters<232>();
      compute(a, shared, head, rowBlock, chunkGroup, begin, end);
    } else {
      giveRegisters<40>();
      if (warp == COMPUTERS / 32) bringTiles(a, shared, cacheMap, head < a.heads, begin, end);
      else if (warp == COMPUTERS / 32 + 1) {
        if (head < a.heads) bringValues(a, shared, weightMap, head, (end - begin) & 1);
      } else if (warp == COMPUTERS / 32 + 2) {
        help(a, shared);
      }
    }
  }
};

}  // namespace flashmla

#define LAYER(T)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1) mlaLayer_##T(                                     \
      const __grid_constant__ CUtensorMap weightMap, const __grid_constant__ CUtensorMap cacheMap, const float* q,     \
      const float* latents, const float* normWeight, const int* positions, const int* slots, const float* rotary,      \
      const float* queryScale, const void* kvB, uint8_t* cache, const int* table, const int* lengths,                  \
      const int* rowCount, void* out, unsigned* mailbox, int maxRows, int heads,                                       \
      int interleaved, int hasQueryScale, int cacheRows, int pageSize, int tableWidth, int outDtype, int groups,       \
      int rowBlocks, float epsilon, float softmaxScale) {                                             \
    flashmla::Layer<flashmla::T>::run(                                                                                 \
        {q, latents, normWeight, positions, slots, rotary, queryScale, cache, table, lengths, rowCount, out, mailbox,  \
         maxRows, heads, interleaved, hasQueryScale, cacheRows, pageSize, tableWidth, outDtype,     \
         groups, rowBlocks, epsilon, softmaxScale},                                                       \
        &weightMap, &cacheMap);                                                                                        \
  }

LAYER(bf16)
LAYER(f16)
