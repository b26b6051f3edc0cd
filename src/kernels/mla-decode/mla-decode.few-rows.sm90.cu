// mlaDecode for Hopper with at most 32 query rows a sequence. The operands are swapped: Sᵀ = K·Qᵀ with 64 cached tokens as the
// tensor core's 64 rows and the query rows (padded to N) as its columns, then Oᵀ = Vᵀ·Pᵀ. Each of two warpgroups keeps a whole
// output and takes every other tile, which one producer warp fetches; results meet once an item, in shared memory.
#include "schedule.cuh"

namespace flashmla {

constexpr int D_R = 64;
constexpr int THREADS = CONSUMERS + 128;

template <typename T, int D_C, int N> struct FewRows {
  static constexpr int BOXES = (D_C + D_R) / 64;
  static constexpr int LATENT_BOXES = D_C / 64;
  static constexpr int STAGE_BYTES = BOXES * BOX_BYTES;
  static constexpr int QUERY_BYTES = BOXES * N * 128;
  static constexpr int COLUMNS = N / 4;
  /** Floats from one row of results to the next: 8·t + g covers all 32 banks. */
  static constexpr int PITCH = D_C + 4;
  static_assert(N * PITCH * 4 <= STAGE_BYTES, "results lie in the stage of the last tile");

  struct Shared {
    uint8_t stages[2][STAGE_BYTES];
    uint8_t queries[QUERY_BYTES];
    uint8_t probabilities[2][N * 128];
    float2 stats[2][N];
    float exchange[2][4][N];
    uint64_t full[2][BOXES];
    uint64_t empty[2];
    uint64_t arrived, done;
    Schedule schedule;
  };

  static __device__ void produce(const Arguments& a, const CUtensorMap* map, Shared& shared, const Place& place) {
    const int lane = threadIdx.x % 32;
    Cursor cursor = openCursor(a, shared.schedule, place);
    Item item;
    int n = 0;
    while (nextItem(a, shared.schedule, cursor, item)) {
      const int* tableRow = a.table + static_cast<size_t>(item.sequence) * a.tableWidth;
      for (int tile = item.firstTile + place.rank; tile < item.endTile; tile += place.size, n++) {
        const int stage = n & 1;
        barrierWait(sharedAddress(&shared.empty[stage]), (n >> 1 & 1) ^ 1);
        if (lane < BOXES) {
          const uint32_t target = sharedAddress(shared.stages[stage]) + lane * BOX_BYTES;
          fetchBox(a, map, tableRow, item.length, tile * TILE, lane * 64, target, sharedAddress(&shared.full[stage][lane]));
        }
        __syncwarp();
      }
    }
  }

  /** Scores of a tile: s holds tokens lane / 4 (and + 8) of the warp's 16, rows 8·j + lane % 4 · 2 (and + 1). */
  static __device__ void score(Shared& shared, int stage, int parity, float (&s)[N / 2]) {
    const uint32_t keys = sharedAddress(shared.stages[stage]), queries = sharedAddress(shared.queries);
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[i] = 0.f;
    pin(s);
#pragma unroll
    for (int box = 0; box < BOXES; box++) {
      barrierWait(sharedAddress(&shared.full[stage][box]), parity);
      warpgroupArrive();
#pragma unroll
      for (int k = 0; k < 4; k++) {
        Wgmma<T, N, 0, 0>::run(s, describe(keys + box * BOX_BYTES + k * 32), describe(queries + box * N * 128 + k * 32));
      }
    }
    warpgroupCommit();
    warpgroupWait<0>();
    pin(s);
  }

  /** Scales to base 2 and hides what a row may not see. */
  static __device__ void scaleAndMask(const Arguments& a, const Item& item, int firstToken, float (&s)[N / 2]) {
    const float scale = a.softmaxScale * LOG2_E;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int allSee = a.causal ? item.length - a.sQ + 1 : item.length;
#pragma unroll
    for (int i = 0; i < N / 2; i++) s[i] *= scale;
    if (firstToken + TILE <= allSee) return;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
      const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
      const int token = firstToken + warp * 16 + lane / 4 + i % 4 / 2 * 8;
      if (token >= visibleTokens(a, item, row)) s[i] = NEGATIVE_INFINITY;
    }
  }

  /** Softmax statistics of the tile over all 4 warps; s becomes the probabilities. Returns whether outputs need rescaling. */
  static __device__ bool softmax(Shared& shared, int group, float (&s)[N / 2], float (&top)[COLUMNS],
                                 float (&sum)[COLUMNS], float (&rescale)[COLUMNS], int clearFrom) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float most[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      most[c] = fmaxf(s[c / 2 * 4 + c % 2], s[c / 2 * 4 + c % 2 + 2]);
#pragma unroll
      for (int step = 4; step < 32; step *= 2) most[c] = fmaxf(most[c], __shfl_xor_sync(~0u, most[c], step));
    }
    if (lane < 4) {
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) shared.exchange[group][warp][c / 2 * 8 + lane * 2 + c % 2] = most[c];
    }
    meet(1 + group, 128);
    if (clearFrom < TILE) clearRows(sharedAddress(shared.stages[group]), LATENT_BOXES, clearFrom, threadIdx.x % 128);
    bool changed = false;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      float next = top[c];
#pragma unroll
      for (int w = 0; w < 4; w++) next = fmaxf(next, shared.exchange[group][w][c / 2 * 8 + lane % 4 * 2 + c % 2]);
      const float base = next == NEGATIVE_INFINITY ? 0.f : next;
      changed |= next != top[c];
      rescale[c] = exp2Fast(top[c] - base);
      top[c] = next;
      float& low = s[c / 2 * 4 + c % 2];
      float& high = s[c / 2 * 4 + c % 2 + 2];
      low = exp2Fast(low - base);
      high = exp2Fast(high - base);
      sum[c] = sum[c] * rescale[c] + low + high;
    }
    return __any_sync(~0u, changed);
  }

  /** Probabilities to shared memory as [rows][64 tokens]. */
  static __device__ void storeProbabilities(Shared& shared, int group, const float (&s)[N / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint32_t target = sharedAddress(shared.probabilities[group]);
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
      const uint32_t address = swizzled(target, j * 8 + lane % 8, warp * 2 + lane / 8 % 2);
      storeMatricesTransposed(address, pack<T>(s[j * 4], s[j * 4 + 1]), pack<T>(s[j * 4 + 2], s[j * 4 + 3]));
    }
  }

  static __device__ void accumulate(Shared& shared, int stage, int group, float (&out)[LATENT_BOXES][N / 2]) {
    const uint32_t values = sharedAddress(shared.stages[stage]), p = sharedAddress(shared.probabilities[group]);
#pragma unroll
    for (int box = 0; box < LATENT_BOXES; box++) pin(out[box]);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int box = 0; box < LATENT_BOXES; box++) {
        Wgmma<T, N, 1, 0>::run(out[box], describe(values + box * BOX_BYTES + k * 2048), describe(p + k * 32));
      }
    }
    warpgroupCommit();
    warpgroupWait<0>();
#pragma unroll
    for (int box = 0; box < LATENT_BOXES; box++) pin(out[box]);
  }

  /** Sums over lanes and warps; then row statistics and outputs to shared memory, where the cluster reads them. */
  static __device__ void publish(Shared& shared, int group, bool any, const float (&top)[COLUMNS], float (&sum)[COLUMNS],
                                 const float (&out)[LATENT_BOXES][N / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
#pragma unroll
      for (int step = 4; step < 32; step *= 2) sum[c] += __shfl_xor_sync(~0u, sum[c], step);
      if (lane < 4) shared.exchange[group][warp][c / 2 * 8 + lane * 2 + c % 2] = sum[c];
    }
    meet(1 + group, 128);
    if (warp == 0 && lane < 4) {
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        const int row = c / 2 * 8 + lane * 2 + c % 2;
        float total = 0.f;
        for (int w = 0; w < 4; w++) total += shared.exchange[group][w][row];
        shared.stats[group][row] = make_float2(top[c], total);
      }
    }
    if (!any) return;
    float* target = reinterpret_cast<float*>(shared.stages[group]);
#pragma unroll
    for (int box = 0; box < LATENT_BOXES; box++) {
#pragma unroll
      for (int i = 0; i < N / 2; i++) {
        const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
        target[row * PITCH + box * 64 + warp * 16 + lane / 4 + i % 4 / 2 * 8] = out[box][i];
      }
    }
  }

  static __device__ void consume(const Arguments& a, Shared& shared, const Place& place) {
    const int thread = threadIdx.x, group = uniform(thread / 128), lane = thread % 32;
    Cursor cursor = openCursor(a, shared.schedule, place);
    Item item;
    int n = 0, items = 0, loaded = -1;
    while (nextItem(a, shared.schedule, cursor, item)) {
      if (item.sequence != loaded) {
        loaded = item.sequence;
        loadQueries<T, D_C + D_R, N>(a, place, item.sequence, sharedAddress(shared.queries), thread);
        fenceForAsync();
        meet(ALL_CONSUMERS, CONSUMERS);
      }
      float top[COLUMNS], sum[COLUMNS], rescale[COLUMNS], out[LATENT_BOXES][N / 2] = {};
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        top[c] = NEGATIVE_INFINITY;
        sum[c] = 0.f;
      }
      bool any = false;
      for (int tile = item.firstTile + place.rank; tile < item.endTile; tile += place.size, n++) {
        if ((n & 1) != group) continue;
        if (any && lane == 0) barrierArrive(sharedAddress(&shared.empty[group]));
        any = true;
        float s[N / 2];
        score(shared, group, n >> 1 & 1, s);
        scaleAndMask(a, item, tile * TILE, s);
        const int clearFrom = min(TILE, item.length - tile * TILE);
        if (softmax(shared, group, s, top, sum, rescale, clearFrom)) {
#pragma unroll
          for (int box = 0; box < LATENT_BOXES; box++) {
#pragma unroll
            for (int i = 0; i < N / 2; i++) out[box][i] *= rescale[i / 4 * 2 + i % 2];
          }
        }
        storeProbabilities(shared, group, s);
        fenceForAsync();
        meet(1 + group, 128);
        accumulate(shared, group, group, out);
      }
      if (items == 0) clusterWait();
      publish(shared, group, any, top, sum, out);
      tellCluster(shared.arrived, group, place.size);
      barrierWaitCluster(sharedAddress(&shared.arrived), items & 1);
      const uint32_t results[2] = {sharedAddress(shared.stages[0]), sharedAddress(shared.stages[1])};
      const uint32_t stats = sharedAddress(shared.stats);
      finishItem<T, N, D_C, 2>(a, shared.schedule, cursor, place, item, results, PITCH, stats, thread);
      tellCluster(shared.done, group, place.size);
      if (item.splits > 1 && arriveLast(a, place, item, shared.schedule, thread)) {
        mergeSplits<T, N, D_C>(a, shared.schedule, cursor, place, item, thread);
      }
      barrierWaitCluster(sharedAddress(&shared.done), items & 1);
      fenceForAsync();
      __syncwarp();
      if (any && lane == 0) barrierArrive(sharedAddress(&shared.empty[group]));
      items++;
    }
    if (items == 0) clusterWait();
  }

  static __device__ void run(const Arguments& a, const CUtensorMap* map) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const Place place = placeOf(a);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 32) {
      prefetchMap(map);
      for (int stage = 0; stage < 2; stage++) {
        for (int box = 0; box < BOXES; box++) barrierInit(sharedAddress(&shared.full[stage][box]), 1);
        barrierInit(sharedAddress(&shared.empty[stage]), 4);
      }
      barrierInit(sharedAddress(&shared.arrived), 2 * place.size);
      barrierInit(sharedAddress(&shared.done), 2 * place.size);
      barrierInitFence();
    }
    if (warp == 0) buildSchedule(a, shared.schedule);
    __syncthreads();
    clusterArrive();
    if (threadIdx.x >= CONSUMERS) {
      giveRegisters<40>();
      if (warp == CONSUMERS / 32) produce(a, map, shared, place);
      clusterWait();
    } else {
      takeRegisters<232>();
      consume(a, shared, place);
    }
  }
};

}  // namespace flashmla

#define FEW_ROWS(T, D_C, N)                                                                                            \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1) mlaDecodeFewRows_##T##_##D_C##_##N(               \
      const __grid_constant__ CUtensorMap map, const void* q, const void* cache, const int* table, const int* lengths, \
      const int* batchCount, void* out, float* lse, float* scratch, unsigned* counters, int batch, int rows,           \
      int heads, int sQ, int pageSize, int tableWidth, int causal, int groups, int rowBlocks, int splitTiles,          \
      int leastTiles, int statsOffset, int counted, int outFloat, float softmaxScale) {                                \
    flashmla::FewRows<flashmla::T, D_C, N>::run(                                                                       \
        {q, cache, table, lengths, batchCount, out, lse, scratch, counters, batch, rows, heads, sQ, pageSize,          \
         tableWidth, causal, groups, rowBlocks, splitTiles, leastTiles, statsOffset, counted, outFloat, softmaxScale}, \
        &map);                                                                                                         \
  }

#define WIDTHS(T)        \
  FEW_ROWS(T, 512, 8)    \
  FEW_ROWS(T, 512, 16)   \
  FEW_ROWS(T, 512, 32)   \
  FEW_ROWS(T, 256, 16)   \
  FEW_ROWS(T, 256, 32)

WIDTHS(bf16)
WIDTHS(f16)
