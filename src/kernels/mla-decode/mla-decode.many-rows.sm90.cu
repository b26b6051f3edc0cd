// mlaDecode for Hopper with many query rows a sequence: 64 rows a block. Two warpgroups hold half of the latent width each, 64 × D_C / 2
// of the output. Tiles come in pairs: the first warpgroup scores the even one, the second the odd one, and each multiplies both
// tiles' probabilities with its half of the values. Probabilities pass through shared memory, in the rotary box of their own
// tile, which nobody needs once the tile is scored.
#include "schedule.cuh"

namespace flashmla {

constexpr int D_R = 64;
constexpr int THREADS = CONSUMERS + 128;
constexpr int ROWS = 64;
/** Named barriers: the even, then the odd tile's probabilities are in shared memory. */
constexpr int EVEN_READY = 4;
constexpr int ODD_READY = 5;
/** The even tile is scored: the odd one's turn, so that one warpgroup exponentiates while the other's products run. */
constexpr int EVEN_SCORED = 6;

template <typename T, int D_C> struct ManyRows {
  static constexpr int BOXES = (D_C + D_R) / 64;
  static constexpr int LATENT_BOXES = D_C / 64;
  static constexpr int STAGE_BYTES = BOXES * BOX_BYTES;
  static constexpr int HALF = D_C / 2;
  static constexpr int HALF_BYTES = HALF / 64 * BOX_BYTES;
  static constexpr int PITCH = D_C + 4;
  static_assert(ROWS * PITCH * 4 <= 2 * STAGE_BYTES, "results lie in the stages");

  struct Shared {
    uint8_t stages[2][STAGE_BYTES];
    uint8_t queries[STAGE_BYTES];
    float2 stats[ROWS];
    float tops[2][ROWS];
    float sums[2][ROWS];
    uint64_t full[2][BOXES];
    /** One for each warpgroup, which frees its half of the values, and the rotary box of the other's tile. */
    uint64_t empty[2][2];
    uint64_t arrived, done, itemDone;
    Schedule schedule;
  };

  static __device__ void produce(const Arguments& a, const CUtensorMap* map, Shared& shared, const Place& place) {
    const int lane = threadIdx.x % 32;
    Cursor cursor = openCursor(a, shared.schedule, place);
    Item item;
    int items = 0, uses[2] = {0, 0};
    while (nextItem(a, shared.schedule, cursor, item)) {
      if (place.size > 1) barrierWait(sharedAddress(&shared.itemDone), (items & 1) ^ 1);
      items++;
      const int* tableRow = a.table + static_cast<size_t>(item.sequence) * a.tableWidth;
      int stage = 0;
      for (int tile = item.firstTile + place.rank; tile < item.endTile; tile += place.size, stage ^= 1) {
        const int own = lane < LATENT_BOXES ? lane / (LATENT_BOXES / 2) : stage ^ 1;
        const int use = stage == 0 ? uses[0] : uses[1];
        for (int half = 0; half < 2; half++) {
          barrierWait(sharedAddress(&shared.empty[stage][half]), (use & 1) ^ 1);
          if (lane < BOXES && own == half) {
            const uint32_t target = sharedAddress(shared.stages[stage]) + lane * BOX_BYTES;
            fetchBox(a, map, tableRow, item.length, tile * TILE, lane * 64, target, sharedAddress(&shared.full[stage][lane]));
          }
          __syncwarp();
        }
        if (stage == 0) uses[0]++;
        else uses[1]++;
      }
    }
  }

  /** What a thread carries: rows lane / 4 and + 8 of its warp's 16. */
  struct State {
    float out[HALF / 2];
    float top[2], sum[2];
  };

  /** s[64 rows × 64 tokens] = queries · keys. */
  static __device__ void score(Shared& shared, int stage, int parity, float (&s)[32]) {
    const uint32_t keys = sharedAddress(shared.stages[stage]), queries = sharedAddress(shared.queries);
#pragma unroll
    for (int i = 0; i < 32; i++) s[i] = 0.f;
    pin(s);
#pragma unroll
    for (int box = 0; box < BOXES; box++) {
      barrierWait(sharedAddress(&shared.full[stage][box]), parity);
      warpgroupArrive();
#pragma unroll
      for (int k = 0; k < 4; k++) {
        Wgmma<T, 64, 0, 0>::run(s, describe(queries + box * BOX_BYTES + k * 32), describe(keys + box * BOX_BYTES + k * 32));
      }
    }
    warpgroupCommit();
    warpgroupWait<0>();
    pin(s);
  }

  /** Scales to base 2, hides what a row may not see, clears what lies past the sequence. Returns each row's maximum. */
  static __device__ void mask(const Arguments& a, const Item& item, const Place& place, Shared& shared, int group,
                              int firstToken, float (&s)[32], float (&most)[2]) {
    const float scale = a.softmaxScale * LOG2_E;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int allSee = a.causal ? item.length - a.sQ + 1 : item.length;
    const bool partial = firstToken + TILE > allSee;
    most[0] = most[1] = NEGATIVE_INFINITY;
    int visible[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      visible[half] = visibleTokens(a, item, place.rowBlock * ROWS + warp * 16 + lane / 4 + half * 8);
    }
#pragma unroll
    for (int i = 0; i < 32; i++) {
      const int half = i / 2 % 2, token = firstToken + i / 4 * 8 + lane % 4 * 2 + i % 2;
      s[i] *= scale;
      if (partial && token >= visible[half]) s[i] = NEGATIVE_INFINITY;
      most[half] = fmaxf(most[half], s[i]);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 1));
      most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 2));
    }
    if (firstToken + TILE <= item.length) return;
    meet(1 + group, 128);
    clearRows(sharedAddress(shared.stages[group]), LATENT_BOXES, item.length - firstToken, threadIdx.x % 128);
    fenceForAsync();
    meet(1 + group, 128);
  }

  static __device__ float baseOf(float top) { return top == NEGATIVE_INFINITY ? 0.f : top; }

  /** Moves outputs and sums to a new maximum. */
  static __device__ void raise(State& state, const float (&next)[2]) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      factor[half] = exp2Fast(state.top[half] - baseOf(next[half]));
      state.top[half] = next[half];
      state.sum[half] *= factor[half];
    }
    if (!__any_sync(~0u, factor[0] != 1.f || factor[1] != 1.f)) return;
#pragma unroll
    for (int i = 0; i < HALF / 2; i++) state.out[i] *= factor[i / 2 % 2];
  }

  /** Probabilities of a tile as operand registers; adds them up into `sum`. */
  static __device__ void exponentiate(const float (&s)[32], const float (&top)[2], float (&sum)[2], uint32_t (&p)[4][4]) {
    const float base[2] = {baseOf(top[0]), baseOf(top[1])};
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
      const int half = i / 2 % 2;
      const float x = exp2Fast(s[i] - base[half]), y = exp2Fast(s[i + 1] - base[half]);
      sum[half] += x + y;
      p[i / 8][i / 4 % 2 * 2 + half] = pack<T>(x, y);
    }
  }

  /** Shares a tile's probabilities and maxima with the other warpgroup. */
  static __device__ void share(Shared& shared, int group, const uint32_t (&p)[4][4], const float (&top)[2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint32_t box = sharedAddress(shared.stages[group]) + LATENT_BOXES * BOX_BYTES;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      storeMatrices(swizzled(box, warp * 16 + lane / 8 % 2 * 8 + lane % 8, k * 2 + lane / 16), p[k]);
    }
    if (lane % 4 == 0) {
      shared.tops[group][warp * 16 + lane / 4] = top[0];
      shared.tops[group][warp * 16 + lane / 4 + 8] = top[1];
    }
    fenceForAsync();
    announce(group == 0 ? EVEN_READY : ODD_READY, CONSUMERS);
  }

  static __device__ void readTops(const Shared& shared, int group, float (&top)[2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    top[0] = shared.tops[group][warp * 16 + lane / 4];
    top[1] = shared.tops[group][warp * 16 + lane / 4 + 8];
  }

  /** Starts out += p · this warpgroup's half of the tile's values, p in registers. */
  static __device__ void startOwn(Shared& shared, int group, int stage, const uint32_t (&p)[4][4], State& state) {
    const uint32_t values = sharedAddress(shared.stages[stage]) + group * HALF_BYTES;
    pin(state.out);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
      WgmmaRegisters<T, HALF, 1>::run(state.out, p[k], describe(values + k * 2048, BOX_BYTES));
    }
    warpgroupCommit();
  }

  /** The same with the other warpgroup's probabilities, from shared memory. */
  static __device__ void startOther(Shared& shared, int group, int stage, State& state) {
    const uint32_t tile = sharedAddress(shared.stages[stage]);
    const uint32_t values = tile + group * HALF_BYTES, p = tile + LATENT_BOXES * BOX_BYTES;
    pin(state.out);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
      Wgmma<T, HALF, 0, 1>::run(state.out, describe(p + k * 32), describe(values + k * 2048, BOX_BYTES));
    }
    warpgroupCommit();
  }

  static __device__ void finish(State& state, uint64_t& empty) {
    warpgroupWait<0>();
    pin(state.out);
    fenceForAsync();
    if (threadIdx.x % 32 == 0) barrierArrive(sharedAddress(&empty));
  }

  /** Waits for this warpgroup's half of a tile that the other one scored. */
  static __device__ void awaitHalf(Shared& shared, int group, int stage, int parity) {
#pragma unroll
    for (int box = 0; box < LATENT_BOXES / 2; box++) {
      barrierWait(sharedAddress(&shared.full[stage][group * (LATENT_BOXES / 2) + box]), parity);
    }
  }

  /** The first warpgroup's part of a pair of tiles. */
  static __device__ void even(const Arguments& a, const Item& item, const Place& place, Shared& shared, int tile,
                              const int (&uses)[2], bool hasOdd, State& state) {
    float s[32], next[2];
    uint32_t p[4][4];
    score(shared, 0, uses[0] & 1, s);
    if (hasOdd) announce(EVEN_SCORED, CONSUMERS);
    mask(a, item, place, shared, 0, tile * TILE, s, next);
#pragma unroll
    for (int half = 0; half < 2; half++) next[half] = fmaxf(next[half], state.top[half]);
    raise(state, next);
    exponentiate(s, state.top, state.sum, p);
    share(shared, 0, p, state.top);
    startOwn(shared, 0, 0, p, state);
    finish(state, shared.empty[0][0]);
    if (!hasOdd) return;
    meet(ODD_READY, CONSUMERS);
    readTops(shared, 1, next);
    raise(state, next);
    awaitHalf(shared, 0, 1, uses[1] & 1);
    startOther(shared, 0, 1, state);
    finish(state, shared.empty[1][0]);
  }

  /** The second warpgroup's part. */
  static __device__ void odd(const Arguments& a, const Item& item, const Place& place, Shared& shared, int tile,
                             const int (&uses)[2], bool hasOdd, State& state) {
    float s[32], most[2], next[2];
    if (hasOdd) {
      meet(EVEN_SCORED, CONSUMERS);
      score(shared, 1, uses[1] & 1, s);
      mask(a, item, place, shared, 1, tile * TILE, s, most);
    }
    meet(EVEN_READY, CONSUMERS);
    readTops(shared, 0, next);
    raise(state, next);
    awaitHalf(shared, 1, 0, uses[0] & 1);
    startOther(shared, 1, 0, state);
    if (!hasOdd) {
      finish(state, shared.empty[0][1]);
      return;
    }
    uint32_t p[4][4];
    float added[2] = {0.f, 0.f};
#pragma unroll
    for (int half = 0; half < 2; half++) next[half] = fmaxf(next[half], most[half]);
    exponentiate(s, next, added, p);
    share(shared, 1, p, next);
    finish(state, shared.empty[0][1]);
    raise(state, next);
    state.sum[0] += added[0];
    state.sum[1] += added[1];
    startOwn(shared, 1, 1, p, state);
    finish(state, shared.empty[1][1]);
  }

  /** Sums over both warpgroups. */
  static __device__ void totalSums(Shared& shared, int group, State& state) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      state.sum[half] += __shfl_xor_sync(~0u, state.sum[half], 1);
      state.sum[half] += __shfl_xor_sync(~0u, state.sum[half], 2);
      if (lane % 4 == 0) shared.sums[group][warp * 16 + lane / 4 + half * 8] = state.sum[half];
    }
    meet(ALL_CONSUMERS, CONSUMERS);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      state.sum[half] += shared.sums[group ^ 1][warp * 16 + lane / 4 + half * 8];
    }
  }

  /** A cluster of one block writes from registers: the result, or this split's part of it. */
  static __device__ void writeAlone(const Arguments& a, const Schedule& schedule, const Cursor& cursor, const Item& item,
                                    const Place& place, int group, const State& state) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const Partial<ROWS, D_C> partial(a, place, slotOf(a, schedule, cursor, item, item.split));
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = warp * 16 + lane / 4 + half * 8, column = group * HALF + lane % 4 * 2;
      if (place.rowBlock * ROWS + row >= a.rows) continue;
      const size_t target = static_cast<size_t>(item.sequence) * a.rows + place.rowBlock * ROWS + row;
      const bool seen = state.sum[half] > 0.f, first = group == 0 && lane % 4 == 0;
      const float factor = item.splits > 1 ? 1.f : seen ? 1.f / state.sum[half] : 0.f;
#pragma unroll
      for (int j = 0; j < HALF / 8; j++) {
        const float x = state.out[j * 4 + half * 2] * factor, y = state.out[j * 4 + half * 2 + 1] * factor;
        const size_t at = target * D_C + column + j * 8;
        if (item.splits > 1) {
          __stcg(reinterpret_cast<float2*>(partial.values + row * D_C + column + j * 8), make_float2(x, y));
        } else if (a.outFloat) {
          *reinterpret_cast<float2*>(static_cast<float*>(a.out) + at) = make_float2(x, y);
        } else {
          *reinterpret_cast<uint32_t*>(static_cast<T*>(a.out) + at) = pack<T>(x, y);
        }
      }
      if (!first) continue;
      if (item.splits > 1) __stcg(partial.stats + row, make_float2(state.top[half], state.sum[half]));
      else a.lse[target] = seen ? (state.top[half] + log2f(state.sum[half])) * LN_2 : -NEGATIVE_INFINITY;
    }
  }

  /** Statistics and outputs to shared memory, over the stages, where the cluster reads them. */
  static __device__ void publish(Shared& shared, int group, const State& state) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float* target = reinterpret_cast<float*>(shared.stages[0]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = warp * 16 + lane / 4 + half * 8;
      if (group == 0 && lane % 4 == 0) shared.stats[row] = make_float2(state.top[half], state.sum[half]);
#pragma unroll
      for (int j = 0; j < HALF / 8; j++) {
        const float2 value = make_float2(state.out[j * 4 + half * 2], state.out[j * 4 + half * 2 + 1]);
        *reinterpret_cast<float2*>(target + row * PITCH + group * HALF + lane % 4 * 2 + j * 8) = value;
      }
    }
  }

  static __device__ void consume(const Arguments& a, Shared& shared, const Place& place) {
    const int thread = threadIdx.x, group = uniform(thread / 128);
    Cursor cursor = openCursor(a, shared.schedule, place);
    Item item;
    int items = 0, loaded = -1, uses[2] = {0, 0};
    while (nextItem(a, shared.schedule, cursor, item)) {
      if (item.sequence != loaded) {
        loaded = item.sequence;
        loadQueries<T, D_C + D_R, ROWS>(a, place, item.sequence, sharedAddress(shared.queries), thread);
        fenceForAsync();
        meet(ALL_CONSUMERS, CONSUMERS);
      }
      State state = {};
      state.top[0] = state.top[1] = NEGATIVE_INFINITY;
      for (int tile = item.firstTile + place.rank; tile < item.endTile; tile += 2 * place.size) {
        const bool hasOdd = tile + place.size < item.endTile;
        if (group == 0) even(a, item, place, shared, tile, uses, hasOdd, state);
        else odd(a, item, place, shared, tile + place.size, uses, hasOdd, state);
        uses[0]++;
        if (hasOdd) uses[1]++;
      }
      totalSums(shared, group, state);
      if (place.size == 1) {
        writeAlone(a, shared.schedule, cursor, item, place, group, state);
      } else {
        if (items == 0) clusterWait();
        publish(shared, group, state);
        tellCluster(shared.arrived, group, place.size);
        barrierWaitCluster(sharedAddress(&shared.arrived), items & 1);
        const uint32_t results[1] = {sharedAddress(shared.stages[0])};
        finishItem<T, ROWS, D_C, 1>(a, shared.schedule, cursor, place, item, results, PITCH, sharedAddress(shared.stats),
                                    thread);
        tellCluster(shared.done, group, place.size);
      }
      if (item.splits > 1 && arriveLast(a, place, item, shared.schedule, thread)) {
        mergeSplits<T, ROWS, D_C>(a, shared.schedule, cursor, place, item, thread);
      }
      if (place.size > 1) {
        barrierWaitCluster(sharedAddress(&shared.done), items & 1);
        fenceForAsync();
        __syncwarp();
        if (thread % 32 == 0) barrierArrive(sharedAddress(&shared.itemDone));
      }
      meet(ALL_CONSUMERS, CONSUMERS);
      items++;
    }
    if (place.size == 1 || items == 0) clusterWait();
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
        barrierInit(sharedAddress(&shared.empty[stage][0]), 4);
        barrierInit(sharedAddress(&shared.empty[stage][1]), 4);
      }
      barrierInit(sharedAddress(&shared.arrived), 2 * place.size);
      barrierInit(sharedAddress(&shared.done), 2 * place.size);
      barrierInit(sharedAddress(&shared.itemDone), CONSUMERS / 32);
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

#define MANY_ROWS(T, D_C)                                                                                              \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1) mlaDecodeManyRows_##T##_##D_C(                    \
      const __grid_constant__ CUtensorMap map, const void* q, const void* cache, const int* table, const int* lengths, \
      const int* batchCount, void* out, float* lse, float* scratch, unsigned* counters, int batch, int rows,           \
      int heads, int sQ, int pageSize, int tableWidth, int causal, int groups, int rowBlocks, int splitTiles,          \
      int leastTiles, int statsOffset, int counted, int outFloat, float softmaxScale) {                                \
    flashmla::ManyRows<flashmla::T, D_C>::run(                                                                         \
        {q, cache, table, lengths, batchCount, out, lse, scratch, counters, batch, rows, heads, sQ, pageSize,          \
         tableWidth, causal, groups, rowBlocks, splitTiles, leastTiles, statsOffset, counted, outFloat, softmaxScale}, \
        &map);                                                                                                         \
  }

MANY_ROWS(bf16, 512)
MANY_ROWS(bf16, 256)
MANY_ROWS(f16, 512)
MANY_ROWS(f16, 256)
