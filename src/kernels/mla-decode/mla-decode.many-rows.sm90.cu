// mlaDecode for Hopper with many query rows a sequence: 64 rows a block. Two warpgroups hold half of the latent width each, 64 × D_C / 2
// of the output. Tiles come in pairs: the first warpgroup scores the even one, the second the odd one, and each multiplies both
// tiles' probabilities with its half of the values. The tensor cores' order is
//
//   scores of the even tile | of the odd tile | even values, both halves | odd values, both halves | scores of the next even tile …
//
// so that the even tile's softmax runs beside the odd tile's scores, and the odd one's beside the even values. Probabilities pass
// through shared memory, in the rotary box of their own tile, which nobody needs once the tile is scored. Where a sequence has an even
// number of row blocks, two of them form a cluster: each block fetches every other box and the copy engine writes it to both.
#include "schedule.cuh"

namespace flashmla {

constexpr int D_R = 64;
constexpr int THREADS = CONSUMERS + 128;
constexpr int ROWS = 64;
/** Named barriers: the even, then the odd tile's probabilities are in shared memory. */
constexpr int EVEN_READY = 4;
constexpr int ODD_READY = 5;
/** The even tile is as good as scored: the odd one's turn; the odd one is scored: the even values' turn. */
constexpr int EVEN_SCORED = 6;
constexpr int ODD_SCORED = 7;
/** Steps of 16 channels whose queries stay in registers: shared memory's bandwidth is what scores wait for. */
constexpr int KEPT = 3;
/** Outputs move to a new maximum only when it is this much larger, in powers of two. */
constexpr float LAZY = 8.f;

template <typename T, int D_C> struct ManyRows {
  static constexpr int BOXES = (D_C + D_R) / 64;
  static constexpr int LATENT_BOXES = D_C / 64;
  static constexpr int STAGE_BYTES = BOXES * BOX_BYTES;
  static constexpr int HALF = D_C / 2;
  static constexpr int HALF_BOXES = LATENT_BOXES / 2;
  /** Blocks of 8 columns a warpgroup has. */
  static constexpr int STRIPS = HALF / 8;

  struct Shared {
    uint8_t stages[2][STAGE_BYTES];
    uint8_t queries[STAGE_BYTES];
    float tops[2][ROWS];
    float sums[2][ROWS];
    uint64_t full[2][BOXES];
    /** One for each warpgroup, which frees its half of the values, and the rotary box of the other's tile. */
    uint64_t empty[2][2];
    uint64_t queriesFull, queriesFree;
    /** Each computing warp's walk and what it works on: registers are scarce. */
    Cursor cursors[CONSUMERS / 32];
    Item items[CONSUMERS / 32];
    Schedule schedule;
  };

  /** Fetches the boxes that warpgroup `half` frees: its half of the latent ones, and the rotary box of the other's tile. */
  static __device__ void produce(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap, Shared& shared,
                                 const Place& place, const Pair& pair, int half) {
    const int lane = threadIdx.x % 32;
    Cursor cursor = openCursor(a, shared.schedule, place);
    waitForInputs(a, shared.schedule, cursor);
    Item item;
    int items = 0, uses[2] = {0, 0};
    while (nextItem(a, shared.schedule, cursor, item)) {
      Pages pages(a, item, item.firstTile);
      if (half == 0) {
        barrierWait(sharedAddress(&shared.queriesFree), (items++ & 1) ^ 1);
        if (lane == 0) {
          barrierExpect(sharedAddress(&shared.queriesFull), STAGE_BYTES);
          const int row = item.sequence * a.rows + place.rowBlock * ROWS;
#pragma unroll
          for (int box = 0; box < BOXES; box++) {
            copyBox(sharedAddress(shared.queries) + box * BOX_BYTES, queryMap, box * 64, row, sharedAddress(&shared.queriesFull));
          }
        }
        __syncwarp();
      }
      int stage = 0;
      for (int tile = item.firstTile; tile < item.endTile; tile++, stage ^= 1) {
        const Pieces here = pages.take(a, item, tile);
        const int use = stage == 0 ? uses[0]++ : uses[1]++;
        barrierWait(sharedAddress(&shared.empty[stage][half]), (use & 1) ^ 1);
        const uint32_t target = sharedAddress(shared.stages[stage]), full = sharedAddress(&shared.full[stage][0]);
        if (lane == 0) {
#pragma unroll
          for (int i = 0; i < HALF_BOXES; i++) {
            const int box = half * HALF_BOXES + i;
            fetchPieces(a, map, here, box, target + box * BOX_BYTES, full + box * 8, !pair.is || i % 2 == pair.rank, pair.is);
          }
          if (stage != half) {
            fetchPieces(a, map, here, LATENT_BOXES, target + LATENT_BOXES * BOX_BYTES, full + LATENT_BOXES * 8,
                        !pair.is || stage == pair.rank, pair.is);
          }
        }
        __syncwarp();
        if (tile + 2 >= item.endTile) continue;
        // By plain instructions: the copy engine takes as long to prefetch a box as to fetch it.
        const int part = half + (pair.is ? 2 * pair.rank : 0);
        prefetchTile(a, pages.peek(a, item, tile + 2), (D_C + D_R) * 2, part * 32 + lane, pair.is ? 128 : 64);
      }
    }
  }

  /** What a thread carries: rows lane / 4 and + 8 of its warp's 16. */
  struct State {
    float out[HALF / 2];
    float top[2], sum[2];
  };

  /** The first KEPT steps' queries as operand registers. */
  static __device__ void keepQueries(Shared& shared, int items, uint32_t (&kept)[KEPT][4]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    barrierWait(sharedAddress(&shared.queriesFull), items & 1);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
      const uint32_t box = sharedAddress(shared.queries) + i / 4 * BOX_BYTES;
      loadMatrices(kept[i], swizzled(box, warp * 16 + lane / 8 % 2 * 8 + lane % 8, i % 4 * 2 + lane / 16));
    }
  }

  /** Starts s[64 rows × 64 tokens] += queries · keys for boxes FIRST to END of the tile. */
  template <int FIRST, int END>
  static __device__ __forceinline__ void startScores(Shared& shared, int stage, int parity, const uint32_t (&kept)[KEPT][4],
                                                     float (&s)[32]) {
    const uint32_t keys = sharedAddress(shared.stages[stage]), queries = sharedAddress(shared.queries);
#pragma unroll
    for (int box = FIRST; box < END; box++) {
      barrierWait(sharedAddress(&shared.full[stage][box]), parity);
      warpgroupArrive();
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const uint64_t key = describe(keys + box * BOX_BYTES + k * 32);
        if (box == 0 && k == 0) {
          WgmmaRegisters<T, 64, 0>::start(s, kept[0], key);
        } else if (box * 4 + k < KEPT) {
          WgmmaRegisters<T, 64, 0>::run(s, kept[box * 4 + k], key);
        } else {
          Wgmma<T, 64, 0, 0>::run(s, describe(queries + box * BOX_BYTES + k * 32), key);
        }
      }
    }
    warpgroupCommit();
  }

  /** Hides what a row may not see, clears what lies past the sequence. Returns each row's maximum, in base 2. */
  static __device__ __forceinline__ void mask(const Arguments& a, const Item& item, const Place& place, Shared& shared,
                                              int group, int firstToken, float (&s)[32], float (&most)[2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int allSee = a.causal ? item.length - a.sQ + 1 : item.length;
    if (a.softmaxScale < 0.f) {
#pragma unroll
      for (int i = 0; i < 32; i++) s[i] = -s[i];
    }
    if (firstToken + TILE > allSee) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = place.rowBlock * ROWS + warp * 16 + lane / 4 + half * 8;
        const int visible = visibleTokens(a, item, row) - firstToken - lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 16; i++) {
          if (i / 2 * 8 + i % 2 >= visible) s[i / 2 * 4 + half * 2 + i % 2] = NEGATIVE_INFINITY;
        }
      }
    }
    most[0] = most[1] = NEGATIVE_INFINITY;
#pragma unroll
    for (int i = 0; i < 32; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 1));
      most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 2)) * scaleOf(a);
    }
    if (firstToken + TILE <= item.length) return;
    meet(1 + group, 128);
    clearRows(sharedAddress(shared.stages[group]), LATENT_BOXES, item.length - firstToken, threadIdx.x % 128);
    fenceForAsync();
    meet(1 + group, 128);
  }

  static __device__ __forceinline__ float baseOf(float top) { return top == NEGATIVE_INFINITY ? 0.f : top; }

  /** Of scores whose sign is the scale's; never 0, so that what is hidden stays at −∞. */
  static __device__ __forceinline__ float scaleOf(const Arguments& a) { return fmaxf(fabsf(a.softmaxScale) * LOG2_E, 1e-30f); }

  static __device__ __forceinline__ float lazyTop(float top, float most) { return most > top + LAZY ? most : top; }

  static __device__ __forceinline__ bool rises(const State& state, const float (&next)[2]) {
    return next[0] != state.top[0] || next[1] != state.top[1];
  }

  /** Moves outputs and sums to a new maximum; no product may be running. */
  static __device__ __forceinline__ void raise(State& state, const float (&next)[2]) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      factor[half] = exp2Fast(state.top[half] - baseOf(next[half]));
      state.top[half] = next[half];
      state.sum[half] *= factor[half];
    }
#pragma unroll
    for (int i = 0; i < HALF / 2; i++) state.out[i] *= factor[i / 2 % 2];
    pin(state.out);
  }

  /** The same where products may be running: if any row of the warpgroup rises, all wait for them. */
  static __device__ __forceinline__ void raiseWaiting(int group, State& state, const float (&next)[2]) {
    if (!anyOf(1 + group, 128, rises(state, next))) return;
    warpgroupWait<0>();
    pin(state.out);
    raise(state, next);
  }

  /** Probabilities of a tile as operand registers; adds them up into `sum`. */
  static __device__ __forceinline__ void exponentiate(float scale, const float (&s)[32], const float (&top)[2], float (&sum)[2],
                                                      uint32_t (&p)[4][4]) {
    const float base[2] = {baseOf(top[0]), baseOf(top[1])};
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
      const int half = i / 2 % 2;
      const float x = exp2Fast(fmaf(s[i], scale, -base[half])), y = exp2Fast(fmaf(s[i + 1], scale, -base[half]));
      sum[half] += x + y;
      p[i / 8][i / 4 % 2 * 2 + half] = pack<T>(x, y);
    }
  }

  /** Shares a tile's probabilities and maxima with the other warpgroup. */
  static __device__ __forceinline__ void share(Shared& shared, int group, const uint32_t (&p)[4][4], const float (&top)[2]) {
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

  static __device__ __forceinline__ void readTops(const Shared& shared, int group, float (&top)[2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    top[0] = shared.tops[group][warp * 16 + lane / 4];
    top[1] = shared.tops[group][warp * 16 + lane / 4 + 8];
  }

  /** Starts out += p · this warpgroup's half of the tile's values, p in registers. */
  static __device__ __forceinline__ void startOwn(Shared& shared, int group, const uint32_t (&p)[4][4], State& state) {
    const uint32_t values = sharedAddress(shared.stages[group]) + group * (HALF_BOXES * BOX_BYTES);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
      WgmmaRegisters<T, HALF, 1>::run(state.out, p[k], describe(values + k * 2048, BOX_BYTES));
    }
    warpgroupCommit();
  }

  /** The same with the other warpgroup's probabilities, from shared memory; that one has seen the tile's boxes arrive. */
  static __device__ __forceinline__ void startOther(Shared& shared, int group, State& state) {
    const int stage = group ^ 1;
    const uint32_t tile = sharedAddress(shared.stages[stage]);
    const uint32_t values = tile + group * (HALF_BOXES * BOX_BYTES), p = tile + LATENT_BOXES * BOX_BYTES;
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
      Wgmma<T, HALF, 0, 1>::run(state.out, describe(p + k * 32), describe(values + k * 2048, BOX_BYTES));
    }
    warpgroupCommit();
  }

  /** This warpgroup needs its half of that stage no more; `peer` is the other block of the pair, or −1. */
  static __device__ __forceinline__ void release(Shared& shared, int stage, int group, int peer) {
    if (threadIdx.x % 32 != 0) return;
    const uint32_t barrier = sharedAddress(&shared.empty[stage][group]);
    barrierArrive(barrier);
    if (peer >= 0) barrierArriveRelaxedAt(barrier, peer);
  }

  /** The first warpgroup's part of an item. */
  static __device__ __forceinline__ void evenTiles(const Arguments& a, const Item& item, const Place& place, int peer,
                                                   Shared& shared, int items, int& uses, State& state) {
    const int endTile = item.endTile;
    float s[32], next[2];
    uint32_t p[4][4], kept[KEPT][4];
    keepQueries(shared, items, kept);
    startScores<0, BOXES - 1>(shared, 0, uses & 1, kept, s);
    startScores<BOXES - 1, BOXES>(shared, 0, uses & 1, kept, s);
    warpgroupWait<1>();
    if (item.firstTile + 1 < endTile) announce(EVEN_SCORED, CONSUMERS);
    warpgroupWait<0>();
    pin(s);
    for (int tile = item.firstTile;; tile += 2) {
      mask(a, item, place, shared, 0, tile * TILE, s, next);
      next[0] = lazyTop(state.top[0], next[0]);
      next[1] = lazyTop(state.top[1], next[1]);
      if (__any_sync(~0u, rises(state, next))) raise(state, next);
      exponentiate(scaleOf(a), s, state.top, state.sum, p);
      share(shared, 0, p, state.top);
      uses++;
      if (tile + 1 >= endTile) break;
      meet(ODD_SCORED, CONSUMERS);
      startOwn(shared, 0, p, state);
      meet(ODD_READY, CONSUMERS);
      readTops(shared, 1, next);
      warpgroupWait<0>();
      pin(state.out);
      release(shared, 0, 0, peer);
      if (__any_sync(~0u, rises(state, next))) raise(state, next);
      startOther(shared, 0, state);
      if (tile + 2 >= endTile) {
        warpgroupWait<0>();
        pin(state.out);
        release(shared, 1, 0, peer);
        return;
      }
      // A first part of the scores lies behind the last values in the tensor core's queue: it has work while this warpgroup wakes up.
      startScores<0, 2>(shared, 0, uses & 1, kept, s);
      warpgroupWait<1>();
      release(shared, 1, 0, peer);
      startScores<2, BOXES - 1>(shared, 0, uses & 1, kept, s);
      startScores<BOXES - 1, BOXES>(shared, 0, uses & 1, kept, s);
      warpgroupWait<1>();
      if (tile + 3 < endTile) announce(EVEN_SCORED, CONSUMERS);
      warpgroupWait<0>();
      pin(s);
      pin(state.out);
    }
    startOwn(shared, 0, p, state);
    warpgroupWait<0>();
    pin(state.out);
    release(shared, 0, 0, peer);
  }

  /** The second warpgroup's part. */
  static __device__ __forceinline__ void oddTiles(const Arguments& a, const Item& item, const Place& place, int peer,
                                                  Shared& shared, int items, int& uses, State& state) {
    const int endTile = item.endTile;
    float s[32], next[2];
    uint32_t p[4][4], kept[KEPT][4];
    keepQueries(shared, items, kept);
    for (int tile = item.firstTile + 1; tile < endTile; tile += 2) {
      meet(EVEN_SCORED, CONSUMERS);
      startScores<0, BOXES>(shared, 1, uses++ & 1, kept, s);
      meet(EVEN_READY, CONSUMERS);
      readTops(shared, 0, next);
      raiseWaiting(1, state, next);
      startOther(shared, 1, state);
      warpgroupWait<1>();
      announce(ODD_SCORED, CONSUMERS);
      pin(s);
      mask(a, item, place, shared, 1, tile * TILE, s, next);
      next[0] = lazyTop(state.top[0], next[0]);
      next[1] = lazyTop(state.top[1], next[1]);
      float added[2] = {0.f, 0.f};
      exponentiate(scaleOf(a), s, next, added, p);
      share(shared, 1, p, next);
      raiseWaiting(1, state, next);
      state.sum[0] += added[0];
      state.sum[1] += added[1];
      startOwn(shared, 1, p, state);
      warpgroupWait<1>();
      release(shared, 0, 1, peer);
      warpgroupWait<0>();
      pin(state.out);
      release(shared, 1, 1, peer);
    }
    if ((endTile - item.firstTile) % 2 == 0) return;
    meet(EVEN_READY, CONSUMERS);
    readTops(shared, 0, next);
    raiseWaiting(1, state, next);
    startOther(shared, 1, state);
    warpgroupWait<0>();
    pin(state.out);
    release(shared, 0, 1, peer);
  }

  /** Sums over both warpgroups. */
  static __device__ __forceinline__ void totalSums(Shared& shared, int group, State& state) {
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

  /** The result of a sequence that no other block has a part of. */
  static __device__ __forceinline__ void writeAlone(const Arguments& a, const Item& item, const Place& place, int group,
                                                    const State& state) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = place.rowBlock * ROWS + warp * 16 + lane / 4 + half * 8;
      if (row >= a.rows) continue;
      const size_t target = static_cast<size_t>(item.sequence) * a.rows + row;
      const bool seen = state.sum[half] > 0.f;
      const float factor = seen ? 1.f / state.sum[half] : 0.f;
#pragma unroll
      for (int j = 0; j < STRIPS; j++) {
        writePair<T>(a, target * D_C + group * HALF + lane % 4 * 2 + j * 8, state.out[j * 4 + half * 2] * factor,
                     state.out[j * 4 + half * 2 + 1] * factor);
      }
      if (group == 0 && lane % 4 == 0) {
        a.lse[target] = seen ? (state.top[half] + log2f(state.sum[half])) * LN_2 : -NEGATIVE_INFINITY;
      }
    }
  }

  /** The same in 16 bits, by way of the queries' memory, from which the copy engine writes whole rows. */
  static __device__ __forceinline__ void writeStaged(const Arguments& a, Shared& shared, const Item& item, const Place& place,
                                                     int group, const State& state) {
    // 16 bytes more than a row: the eight rows that a warp stores to at once begin in different banks.
    constexpr int PITCH_BYTES = D_C * 2 + 16;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32 % 4;
    const size_t first = static_cast<size_t>(item.sequence) * a.rows + place.rowBlock * ROWS;
    const int rows = a.rows - place.rowBlock * ROWS;
    const uint32_t staging = sharedAddress(shared.queries);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = warp * 16 + lane / 4 + half * 8;
      const bool seen = state.sum[half] > 0.f;
      const float factor = seen ? 1.f / state.sum[half] : 0.f;
      const uint32_t target = staging + row * PITCH_BYTES + (group * HALF + lane % 4 * 2) * 2;
#pragma unroll
      for (int j = 0; j < STRIPS; j++) {
        const uint32_t pair = pack<T>(state.out[j * 4 + half * 2] * factor, state.out[j * 4 + half * 2 + 1] * factor);
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(target + j * 16), "r"(pair) : "memory");
      }
      if (group == 0 && lane % 4 == 0 && row < rows) {
        a.lse[first + row] = seen ? (state.top[half] + log2f(state.sum[half])) * LN_2 : -NEGATIVE_INFINITY;
      }
    }
    fenceForAsync();
    meet(ALL_CONSUMERS, CONSUMERS);
    if (thread >= ROWS || thread >= rows) return;
    copyOut(static_cast<T*>(a.out) + (first + thread) * D_C, staging + thread * PITCH_BYTES, D_C * 2);
  }

  /** A split's part, as its registers lie: strip by strip, four values a thread. */
  static __device__ __forceinline__ void writePart(const Arguments& a, const Parts& parts, int split, int group,
                                                   const State& state) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, slot = parts.slotOf(split);
    float4* target = parts.values<ROWS * D_C>(a, slot) + group * STRIPS * 128 + threadIdx.x % 128;
#pragma unroll
    for (int j = 0; j < STRIPS; j++) {
      __stcg(target + j * 128,
             make_float4(state.out[j * 4], state.out[j * 4 + 1], state.out[j * 4 + 2], state.out[j * 4 + 3]));
    }
    if (group != 0 || lane % 4 != 0) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      __stcg(parts.stats<ROWS>(a, slot) + warp * 16 + lane / 4 + half * 8, make_float2(state.top[half], state.sum[half]));
    }
  }

  /** Merges a strip of 8 columns a half of the threads: all splits, in their order. */
  static __device__ __forceinline__ void mergeStrips(const Arguments& a, const Item& item, const Place& place,
                                                     const Parts& parts, int step) {
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32 % 4, strip = step * 2 + thread / 128;
    const int row = warp * 16 + lane / 4;
    float4 total = make_float4(0.f, 0.f, 0.f, 0.f);
    float top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {0.f, 0.f};
    for (int first = 0; first < item.splits; first += MERGED_AT_ONCE) {
      // All loads of a round are under way before the first is used: one latency, not one for each split.
      float2 stat[MERGED_AT_ONCE][2];
      float4 value[MERGED_AT_ONCE];
#pragma unroll
      for (int k = 0; k < MERGED_AT_ONCE; k++) {
        const int slot = parts.slotOf(min(first + k, item.splits - 1));
        stat[k][0] = __ldcg(parts.stats<ROWS>(a, slot) + row);
        stat[k][1] = __ldcg(parts.stats<ROWS>(a, slot) + row + 8);
        value[k] = __ldcg(parts.values<ROWS * D_C>(a, slot) + strip * 128 + thread % 128);
      }
      float weight[MERGED_AT_ONCE][2], before[2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float next = top[half];
#pragma unroll
        for (int k = 0; k < MERGED_AT_ONCE; k++) {
          if (first + k >= item.splits) stat[k][half] = make_float2(NEGATIVE_INFINITY, 0.f);
          next = fmaxf(next, stat[k][half].x);
        }
        before[half] = exp2Fast(top[half] - baseOf(next));
        sum[half] *= before[half];
        top[half] = next;
#pragma unroll
        for (int k = 0; k < MERGED_AT_ONCE; k++) {
          weight[k][half] = exp2Fast(stat[k][half].x - baseOf(next));
          sum[half] += weight[k][half] * stat[k][half].y;
        }
      }
      total = make_float4(total.x * before[0], total.y * before[0], total.z * before[1], total.w * before[1]);
#pragma unroll
      for (int k = 0; k < MERGED_AT_ONCE; k++) {
        total.x += weight[k][0] * value[k].x;
        total.y += weight[k][0] * value[k].y;
        total.z += weight[k][1] * value[k].z;
        total.w += weight[k][1] * value[k].w;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int ownRow = place.rowBlock * ROWS + row + half * 8;
      if (ownRow >= a.rows) continue;
      const size_t target = static_cast<size_t>(item.sequence) * a.rows + ownRow;
      const float factor = sum[half] > 0.f ? 1.f / sum[half] : 0.f;
      writePair<T>(a, target * D_C + strip * 8 + lane % 4 * 2, (half == 0 ? total.x : total.z) * factor,
                   (half == 0 ? total.y : total.w) * factor);
      if (strip == 0 && lane % 4 == 0) {
        a.lse[target] = sum[half] > 0.f ? (top[half] + log2f(sum[half])) * LN_2 : -NEGATIVE_INFINITY;
      }
    }
  }

  static __device__ void consume(const Arguments& a, Shared& shared, const Place& place, int peer) {
    const int warp = uniform(threadIdx.x / 32), group = warp / 4;
    Cursor& cursor = shared.cursors[warp];
    Item& item = shared.items[warp];
    cursor = openCursor(a, shared.schedule, place);
    __syncwarp();
    int uses = 0;
    for (int items = 0;; items++) {
      {
        Cursor next = cursor;
        Item found;
        if (!nextItem(a, shared.schedule, next, found)) break;
        __syncwarp();
        cursor = next;
        item = found;
        __syncwarp();
      }
      State state = {};
      state.top[0] = state.top[1] = NEGATIVE_INFINITY;
      if (group == 0) evenTiles(a, item, place, peer, shared, items, uses, state);
      else oddTiles(a, item, place, peer, shared, items, uses, state);
      totalSums(shared, group, state);
      if (item.splits == 1 && !a.outFloat) writeStaged(a, shared, item, place, group, state);
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrierArrive(sharedAddress(&shared.queriesFree));
      if (item.splits == 1) {
        if (a.outFloat) writeAlone(a, item, place, group, state);
      } else {
        const Parts parts(a, shared.schedule, cursor, item, place.rowBlock);
        writePart(a, parts, item.split, group, state);
        constexpr int STEPS = D_C / 16;
        const int slices = min(item.splits, STEPS);
        Sharing sharing(a, place, item, slices, shared.schedule, cursor.unit >= cursor.end);
        for (int slice; sharing.take(slice);) {
          for (int step = slice * STEPS / slices; step < (slice + 1) * STEPS / slices; step++) {
            mergeStrips(a, item, place, parts, step);
          }
        }
      }
      meet(ALL_CONSUMERS, CONSUMERS);
    }
  }

  static __device__ void run(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    letNextBegin();
    const Pair pair = {clusterSize() == 2, clusterRank()};
    const Place place = placeOfPair(a, pair);
    const int warp = uniform(threadIdx.x / 32);
    if (threadIdx.x == 32) {
      prefetchMap(map);
      prefetchMap(queryMap);
      for (int stage = 0; stage < 2; stage++) {
        for (int box = 0; box < BOXES; box++) barrierInit(sharedAddress(&shared.full[stage][box]), 1);
        barrierInit(sharedAddress(&shared.empty[stage][0]), pair.is ? 8 : 4);
        barrierInit(sharedAddress(&shared.empty[stage][1]), pair.is ? 8 : 4);
      }
      barrierInit(sharedAddress(&shared.queriesFull), 1);
      barrierInit(sharedAddress(&shared.queriesFree), CONSUMERS / 32);
      barrierInitFence();
    }
    if (warp == 0) buildSchedule(a, shared.schedule);
    else touchParameters(a, warp);
    __syncthreads();
    if (pair.is) {
      clusterArrive();
      clusterWait();
    }
    if (threadIdx.x >= CONSUMERS) {
      giveRegisters<40>();
      const int half = warp - CONSUMERS / 32;
      if (half < 2) produce(a, map, queryMap, shared, place, pair, half);
      __syncwarp();
    } else {
      takeRegisters<232>();
      consume(a, shared, place, pair.is ? pair.rank ^ 1 : -1);
    }
    // The other block of the pair still writes to this one's memory and barriers.
    if (pair.is) {
      clusterArrive();
      clusterWait();
    }
  }
};

}  // namespace flashmla

#define MANY_ROWS(T, D_C)                                                                                              \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1) mlaDecodeManyRows_##T##_##D_C(                    \
      const __grid_constant__ CUtensorMap map, const __grid_constant__ CUtensorMap queryMap, const void* q,            \
      const void* cache, const int* table, const int* lengths, const int* batchCount, void* out, float* lse,           \
      float* scratch, unsigned* counters, int batch, int rows, int heads, int sQ, int pageSize, int tableWidth,        \
      int causal, int groups, int rowBlocks, int splitTiles, int leastTiles, int statsOffset, int counted,             \
      int outFloat, float softmaxScale) {                                                                              \
    flashmla::ManyRows<flashmla::T, D_C>::run(                                                                         \
        {q, cache, table, lengths, batchCount, out, lse, scratch, counters, batch, rows, heads, sQ, pageSize,          \
         tableWidth, causal, groups, rowBlocks, splitTiles, leastTiles, statsOffset, counted, outFloat, softmaxScale}, \
        &map, &queryMap);                                                                                              \
  }

MANY_ROWS(bf16, 512)
MANY_ROWS(bf16, 256)
MANY_ROWS(f16, 512)
MANY_ROWS(f16, 256)
