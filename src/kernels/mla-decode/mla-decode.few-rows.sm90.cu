// mlaDecode for Hopper with at most 32 query rows a sequence. The operands are swapped: Sᵀ = K·Qᵀ with 64 cached tokens as the
// tensor core's 64 rows and the query rows (padded to N) as its columns, then Oᵀ = Vᵀ·Pᵀ. Two warpgroups work on every tile: each
// multiplies half of the channels for the scores, both add up in shared memory and exponentiate row by row, and each multiplies the
// values of half of the latent width. A cluster's blocks take tiles in turn; at the end each sends the others their columns.
#include "schedule.cuh"

namespace flashmla {

constexpr int D_R = 64;
constexpr int THREADS = CONSUMERS + 32;
/** Floats from one row to the next in scores and results: 8·t + g covers all 32 banks. */
constexpr int PITCH = 68;
/** Outputs move to a new maximum only when it is this much larger, in powers of two. */
constexpr float LAZY = 8.f;

template <typename T, int D_C, int N> struct FewRows {
  static constexpr int BOXES = (D_C + D_R) / 64;
  static constexpr int LATENT_BOXES = D_C / 64;
  static constexpr int HALF_BOXES = LATENT_BOXES / 2;
  static constexpr int STAGE_BYTES = BOXES * BOX_BYTES;
  static constexpr int QUERY_BYTES = BOXES * N * 128;
  /** Threads that exponentiate a row of a tile, and tokens each has. */
  static constexpr int LANES = CONSUMERS / N;
  static constexpr int TOKENS = TILE / LANES;
  /** Rows that are sent and merged at once. */
  static constexpr int ROUND = N == 16 ? 16 : 8;
  /** A box of results: ROUND rows of 64 columns, then the row's maximum and sum. */
  static constexpr int MESSAGE = ROUND * PITCH;
  static_assert(LATENT_BOXES * MESSAGE * 4 <= STAGE_BYTES, "results lie in the stage of the last tile");

  struct Shared {
    uint8_t stages[2][STAGE_BYTES];
    uint8_t queries[QUERY_BYTES];
    uint8_t probabilities[N * 128];
    /** What the cluster's blocks sent: [block][boxes of this rank][MESSAGE]. */
    float inbox[LATENT_BOXES * MESSAGE];
    float scores[2][N * PITCH];
    float factors[N];
    uint64_t full[2][BOXES];
    uint64_t empty[2];
    uint64_t queriesFull, queriesFree;
    /** All messages are there; all receivers have this block's; all receivers have merged theirs. */
    uint64_t inboxFull, delivered, merged;
    Schedule schedule;
  };

  /** Brings a small block table near while the schedule is not known yet. */
  static __device__ __forceinline__ void touchTable(const Arguments& a, int lane) {
    const int lines = (a.batch * a.tableWidth + 31) / 32;
    if (lines > 128) return;
    for (int i = lane; i < lines; i += 32) {
      int value;
      asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(value) : "l"(a.table + i * 32));
    }
  }

  static __device__ void produce(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap, Shared& shared,
                                 const Place& place) {
    const int lane = threadIdx.x % 32;
    Cursor cursor = openCursor(a, shared.schedule, place);
    waitForInputs(a, shared.schedule, cursor);
    Item item;
    int n = 0, items = 0;
    while (nextItem(a, shared.schedule, cursor, item)) {
      int tile = item.firstTile + place.rank;
      Pages pages(a, item, tile);
      barrierWait(sharedAddress(&shared.queriesFree), (items++ & 1) ^ 1);
      if (lane == 0) {
        const uint32_t full = sharedAddress(&shared.queriesFull);
        barrierExpect(full, QUERY_BYTES);
        const int row = item.sequence * a.rows + place.rowBlock * N;
#pragma unroll
        for (int box = 0; box < BOXES; box++) copyBox(sharedAddress(shared.queries) + box * N * 128, queryMap, box * 64, row, full);
      }
      __syncwarp();
      for (; tile < item.endTile; tile += place.size, n++) {
        const Pieces pieces = pages.take(a, item, tile);
        const int stage = n & 1;
        barrierWait(sharedAddress(&shared.empty[stage]), (n >> 1 & 1) ^ 1);
        if (lane == 0) {
          const uint32_t target = sharedAddress(shared.stages[stage]), full = sharedAddress(&shared.full[stage][0]);
#pragma unroll
          for (int box = 0; box < BOXES; box++) {
            fetchPieces(a, map, pieces, box, target + box * BOX_BYTES, full + box * 8, true, false);
          }
        }
        __syncwarp();
      }
    }
  }

  /** Half of the channels' part of the tile's scores, into shared memory as [row][token]. */
  static __device__ __forceinline__ void score(Shared& shared, int group, int stage, int parity) {
    const uint32_t keys = sharedAddress(shared.stages[stage]), queries = sharedAddress(shared.queries);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float s[N / 2];
#pragma unroll
    for (int i = 0; i <= HALF_BOXES; i++) {
      const int box = i < HALF_BOXES ? group * HALF_BOXES + i : LATENT_BOXES;
      barrierWait(sharedAddress(&shared.full[stage][box]), parity);
      warpgroupArrive();
#pragma unroll
      for (int k = 0; k < (i < HALF_BOXES ? 4 : 2); k++) {
        const int step = i < HALF_BOXES ? k : group * 2 + k;
        const uint64_t key = describe(keys + box * BOX_BYTES + step * 32), query = describe(queries + box * N * 128 + step * 32);
        if (i == 0 && k == 0) Wgmma<T, N, 0, 0>::start(s, key, query);
        else Wgmma<T, N, 0, 0>::run(s, key, query);
      }
    }
    warpgroupCommit();
    warpgroupWait<0>();
    pin(s);
    float* target = shared.scores[group] + lane % 4 * 2 * PITCH + warp * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < N / 2; i++) target[(i / 4 * 8 + i % 2) * PITCH + i % 4 / 2 * 8] = s[i];
  }

  /** One row's part of the softmax, of which it sees `visible` tokens; probabilities go to shared memory. Returns whether its maximum moves. */
  static __device__ __forceinline__ bool softmax(const Arguments& a, Shared& shared, int visible, float& top, float& sum) {
    const int row = threadIdx.x / LANES, token = threadIdx.x % LANES * TOKENS;
    const float scale = a.softmaxScale * LOG2_E;
    const float* first = shared.scores[0] + row * PITCH + token;
    const float* second = shared.scores[1] + row * PITCH + token;
    float s[TOKENS], most = NEGATIVE_INFINITY;
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
      s[i] = token + i < visible ? (first[i] + second[i]) * scale : NEGATIVE_INFINITY;
      most = fmaxf(most, s[i]);
    }
#pragma unroll
    for (int step = 1; step < LANES; step *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    const bool rises = most > top + LAZY;
    const float next = rises ? most : top, base = next == NEGATIVE_INFINITY ? 0.f : next;
    const float factor = rises ? exp2Fast(top - base) : 1.f;
    top = next;
    sum *= factor;
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
      s[i] = exp2Fast(s[i] - base);
      sum += s[i];
    }
    const uint32_t target = swizzled(sharedAddress(shared.probabilities), row, token / 8) + token % 8 * 2;
#pragma unroll
    for (int i = 0; i < TOKENS; i += 2) {
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(target + i * 2), "r"(pack<T>(s[i], s[i + 1])) : "memory");
    }
    if (threadIdx.x % LANES == 0) shared.factors[row] = factor;
    return rises;
  }

  /** Multiplies outputs by their rows' factors. */
  static __device__ __forceinline__ void rescale(const Shared& shared, float (&out)[HALF_BOXES][N / 2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
      const float low = shared.factors[j * 8 + lane % 4 * 2], high = shared.factors[j * 8 + lane % 4 * 2 + 1];
#pragma unroll
      for (int box = 0; box < HALF_BOXES; box++) {
        out[box][j * 4] *= low;
        out[box][j * 4 + 1] *= high;
        out[box][j * 4 + 2] *= low;
        out[box][j * 4 + 3] *= high;
      }
    }
  }

  static __device__ __forceinline__ void accumulate(Shared& shared, int group, int stage, float (&out)[HALF_BOXES][N / 2]) {
    const uint32_t values = sharedAddress(shared.stages[stage]) + group * HALF_BOXES * BOX_BYTES;
    const uint32_t p = sharedAddress(shared.probabilities);
#pragma unroll
    for (int box = 0; box < HALF_BOXES; box++) pin(out[box]);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int box = 0; box < HALF_BOXES; box++) {
        Wgmma<T, N, 1, 0>::run(out[box], describe(values + box * BOX_BYTES + k * 2048), describe(p + k * 32));
      }
    }
    warpgroupCommit();
    warpgroupWait<0>();
#pragma unroll
    for (int box = 0; box < HALF_BOXES; box++) pin(out[box]);
  }

  /** Results of rows from ROUND·`round` on to `outbox`: [box][row][column], then each row's maximum and sum. */
  static __device__ __forceinline__ void publish(float* outbox, int group, int round, float top, float sum,
                                                 const float (&out)[HALF_BOXES][N / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int box = 0; box < HALF_BOXES; box++) {
      float* target = outbox + (group * HALF_BOXES + box) * MESSAGE + lane % 4 * 2 * PITCH + warp * 16 + lane / 4;
#pragma unroll
      for (int i = 0; i < ROUND / 2; i++) {
        target[(i / 4 * 8 + i % 2) * PITCH + i % 4 / 2 * 8] = out[box][round * (ROUND / 2) + i];
      }
    }
    const int row = threadIdx.x / LANES - round * ROUND;
    if (row < 0 || row >= ROUND || threadIdx.x % LANES != 0) return;
    for (int box = 0; box < LATENT_BOXES; box++) {
      *reinterpret_cast<float2*>(outbox + box * MESSAGE + row * PITCH + 64) = make_float2(top, sum);
    }
  }

  /** Sends every block of the cluster its columns, and waits for what the others have for this one. */
  static __device__ __forceinline__ void trade(Shared& shared, const Place& place, const float* outbox, bool any, int active,
                                               int rounds) {
    const int thread = threadIdx.x, shift = 31 - __clz(LATENT_BOXES / place.size), boxes = 1 << shift;
    const uint32_t full = sharedAddress(&shared.inboxFull);
    // Everybody has merged what is in the inboxes.
    if (rounds > 0) barrierWaitCluster(sharedAddress(&shared.merged), (rounds - 1) & 1);
    if (thread == 0) barrierExpect(full, active * boxes * MESSAGE * 4);
    if (any && thread < LATENT_BOXES) {
      const int target = thread >> shift;
      sendShared(remoteAddress(sharedAddress(shared.inbox + (place.rank * boxes + (thread & (boxes - 1))) * MESSAGE), target),
                 sharedAddress(outbox + thread * MESSAGE), MESSAGE * 4, remoteAddress(full, target));
    }
    barrierWaitCluster(full, rounds & 1);
    if (thread < place.size) barrierArriveRelaxedAt(sharedAddress(&shared.delivered), thread);
  }

  /** The first `active` of SIZE blocks' results for one row and 4 columns. */
  template <int SIZE>
  static __device__ __forceinline__ Merged mergeBlocks(const float* first, int stride, int active, int column) {
    float4 value[SIZE];
    float2 stat[SIZE];
    Merged merged = {make_float4(0.f, 0.f, 0.f, 0.f), NEGATIVE_INFINITY, 0.f};
#pragma unroll
    for (int r = 0; r < SIZE; r++) {
      const float* row = first + min(r, active - 1) * stride;
      stat[r] = *reinterpret_cast<const float2*>(row + 64);
      value[r] = *reinterpret_cast<const float4*>(row + column);
      merged.top = fmaxf(merged.top, stat[r].x);
    }
    if (SIZE == 1) return {value[0], stat[0].x, stat[0].y};
    const float base = merged.top == NEGATIVE_INFINITY ? 0.f : merged.top;
#pragma unroll
    for (int r = 0; r < SIZE; r++) {
      const float weight = r < active ? exp2Fast(stat[r].x - base) : 0.f;
      merged.sum += weight * stat[r].y;
      addWeighted(merged.value, weight, value[r]);
    }
    return merged;
  }

  /** This rank's columns of the cluster's result: the output, or this split's part of it. */
  template <int SIZE>
  static __device__ __forceinline__ void finish(const Arguments& a, const Place& place, const Item& item, int slot,
                                                const float* results, int active, int round) {
    constexpr int boxes = LATENT_BOXES >= SIZE ? LATENT_BOXES / SIZE : 1, quads = boxes * 16;
    const int rows = min(ROUND, a.rows - place.rowBlock * N - round * ROUND);
    const Partial<N, D_C> partial(a, place, slot);
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * quads; i += CONSUMERS) {
      const int row = i / quads, quad = i % quads, ownRow = round * ROUND + row;
      const int column = (place.rank * boxes + quad / 16) * 64 + quad % 16 * 4;
      const Merged merged =
          mergeBlocks<SIZE>(results + quad / 16 * MESSAGE + row * PITCH, boxes * MESSAGE, active, quad % 16 * 4);
      if (item.splits == 1) {
        const size_t target = static_cast<size_t>(item.sequence) * a.rows + place.rowBlock * N + ownRow;
        writeRow<T>(a, target, D_C, column, merged, place.rank == 0 && quad == 0);
      } else {
        __stcg(reinterpret_cast<float4*>(partial.values + ownRow * D_C + column), merged.value);
        if (quad == 0) __stcg(partial.stats + ownRow, make_float2(merged.top, merged.sum));
      }
    }
  }

  static __device__ void consume(const Arguments& a, Shared& shared, const Place& place) {
    const int thread = threadIdx.x, group = uniform(thread / 128);
    Cursor cursor = openCursor(a, shared.schedule, place);
    Item item;
    int n = 0, items = 0, rounds = 0;
    while (nextItem(a, shared.schedule, cursor, item)) {
      float top = NEGATIVE_INFINITY, sum = 0.f, out[HALF_BOXES][N / 2] = {};
      bool any = false;
      const int visible = visibleTokens(a, item, thread / LANES);
      barrierWait(sharedAddress(&shared.queriesFull), items & 1);
      for (int tile = item.firstTile + place.rank; tile < item.endTile; tile += place.size, n++) {
        const int stage = n & 1;
        if (any && thread % 32 == 0) barrierArrive(sharedAddress(&shared.empty[stage ^ 1]));
        any = true;
        score(shared, group, stage, n >> 1 & 1);
        meet(ALL_CONSUMERS, CONSUMERS);
        const bool rises = softmax(a, shared, visible - tile * TILE, top, sum);
        const int clearFrom = item.length - tile * TILE;
        if (clearFrom < TILE) {
          const uint32_t half = sharedAddress(shared.stages[stage]) + group * HALF_BOXES * BOX_BYTES;
          clearRows(half, HALF_BOXES, clearFrom, thread % 128);
        }
        fenceForAsync();
        if (anyOf(ALL_CONSUMERS, CONSUMERS, rises)) rescale(shared, out);
        accumulate(shared, group, stage, out);
      }
      if (thread % 32 == 0) barrierArrive(sharedAddress(&shared.queriesFree));
#pragma unroll
      for (int step = 1; step < LANES; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
      float* outbox = reinterpret_cast<float*>(shared.stages[(n & 1) ^ 1]);
      const int active = min(place.size, item.endTile - item.firstTile);
      const int slot = slotOf(a, shared.schedule, cursor, item, item.split);
      const bool more = cursor.unit < cursor.end;
      if (items++ == 0) clusterWait();
      // Both warpgroups' products have read the stage that the results go to.
      meet(ALL_CONSUMERS, CONSUMERS);
#pragma unroll
      for (int round = 0; round < N / ROUND; round++) {
        if (any) publish(outbox, group, round, top, sum, out);
        fenceForAsync();
        meet(ALL_CONSUMERS, CONSUMERS);
        if (place.size == 1) {
          finish<1>(a, place, item, slot, outbox, active, round);
          if (round + 1 < N / ROUND) meet(ALL_CONSUMERS, CONSUMERS);
          continue;
        }
        trade(shared, place, outbox, any, active, rounds);
        if (place.size == 8) finish<8>(a, place, item, slot, shared.inbox, active, round);
        else if (place.size == 4) finish<4>(a, place, item, slot, shared.inbox, active, round);
        else finish<2>(a, place, item, slot, shared.inbox, active, round);
        if (more || round + 1 < N / ROUND) {
          meet(ALL_CONSUMERS, CONSUMERS);
          if (thread < place.size) barrierArriveRelaxedAt(sharedAddress(&shared.merged), thread);
        }
        barrierWaitCluster(sharedAddress(&shared.delivered), rounds++ & 1);
      }
      if (item.splits > 1 && arriveLast(a, place, item, shared.schedule, thread)) {
        mergeSplits<T, N, D_C>(a, shared.schedule, cursor, place, item, thread);
      }
      fenceForAsync();
      __syncwarp();
      if (any && thread % 32 == 0) barrierArrive(sharedAddress(&shared.empty[(n & 1) ^ 1]));
    }
    if (items == 0) clusterWait();
  }

  static __device__ void run(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    letNextBegin();
    const Place place = placeOf(a);
    const int warp = uniform(threadIdx.x / 32);
    if (threadIdx.x == 32) {
      prefetchMap(map);
      prefetchMap(queryMap);
      for (int stage = 0; stage < 2; stage++) {
        for (int box = 0; box < BOXES; box++) barrierInit(sharedAddress(&shared.full[stage][box]), 1);
        barrierInit(sharedAddress(&shared.empty[stage]), CONSUMERS / 32);
      }
      barrierInit(sharedAddress(&shared.queriesFull), 1);
      barrierInit(sharedAddress(&shared.queriesFree), CONSUMERS / 32);
      barrierInit(sharedAddress(&shared.inboxFull), 1);
      barrierInit(sharedAddress(&shared.delivered), place.size);
      barrierInit(sharedAddress(&shared.merged), place.size);
      barrierInitFence();
    }
    if (warp == 0) buildSchedule(a, shared.schedule);
    else touchParameters(a, warp);
    if (warp == CONSUMERS / 32) touchTable(a, threadIdx.x % 32);
    __syncthreads();
    clusterArrive();
    if (warp == CONSUMERS / 32) {
      produce(a, map, queryMap, shared, place);
      __syncwarp();
      clusterWait();
    } else {
      consume(a, shared, place);
    }
  }
};

}  // namespace flashmla

#define FEW_ROWS(T, D_C, N)                                                                                            \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1) mlaDecodeFewRows_##T##_##D_C##_##N(               \
      const __grid_constant__ CUtensorMap map, const __grid_constant__ CUtensorMap queryMap, const void* q,            \
      const void* cache, const int* table, const int* lengths, const int* batchCount, void* out, float* lse,           \
      float* scratch, unsigned* counters, int batch, int rows, int heads, int sQ, int pageSize, int tableWidth,        \
      int causal, int groups, int rowBlocks, int splitTiles, int leastTiles, int statsOffset, int counted,             \
      int outFloat, float softmaxScale) {                                                                              \
    flashmla::FewRows<flashmla::T, D_C, N>::run(                                                                       \
        {q, cache, table, lengths, batchCount, out, lse, scratch, counters, batch, rows, heads, sQ, pageSize,          \
         tableWidth, causal, groups, rowBlocks, splitTiles, leastTiles, statsOffset, counted, outFloat, softmaxScale}, \
        &map, &queryMap);                                                                                              \
  }

#define WIDTHS(T)        \
  FEW_ROWS(T, 512, 8)    \
  FEW_ROWS(T, 512, 16)   \
  FEW_ROWS(T, 512, 32)   \
  FEW_ROWS(T, 256, 16)   \
  FEW_ROWS(T, 256, 32)

WIDTHS(bf16)
WIDTHS(f16)
