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

  /** The producer's way through tiles: `fresh` at the first of an item, `more` while there is one. */
  struct Walk {
    Cursor cursor;
    Item item;
    int tile, stage;
    bool fresh, more;
  };

  static __device__ __forceinline__ void step(const Arguments& a, const Schedule& schedule, Walk& walk) {
    walk.tile++;
    walk.stage ^= 1;
    walk.fresh = walk.tile >= walk.item.endTile;
    if (!walk.fresh) return;
    walk.more = nextItem(a, schedule, walk.cursor, walk.item);
    walk.tile = walk.item.firstTile;
    walk.stage = 0;
  }

  static __device__ void produce(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap, Shared& shared,
                                 const Place& place, const Pair& pair) {
    const int lane = threadIdx.x % 32;
    Walk now;
    now.cursor = openCursor(a, shared.schedule, place);
    now.more = nextItem(a, shared.schedule, now.cursor, now.item);
    now.tile = now.item.firstTile;
    now.stage = 0;
    now.fresh = true;
    if (!now.more) return;
    Walk next = now;
    Pieces here = locate(a, now.item, now.tile), ahead = here;
    step(a, shared.schedule, next);
    if (next.more) ahead = locate(a, next.item, next.tile);
    int items = 0, uses[2] = {0, 0};
    while (now.more) {
      if (now.fresh) {
        barrierWait(sharedAddress(&shared.queriesFree), (items++ & 1) ^ 1);
        if (lane == 0) barrierExpect(sharedAddress(&shared.queriesFull), STAGE_BYTES);
        __syncwarp();
        if (lane < BOXES) {
          copyBox(sharedAddress(shared.queries) + lane * BOX_BYTES, queryMap, lane * 64,
                  now.item.sequence * a.rows + place.rowBlock * ROWS, sharedAddress(&shared.queriesFull));
        }
      }
      const int owner = lane < LATENT_BOXES ? lane / HALF_BOXES : now.stage ^ 1;
      const bool fetches = !pair.is || (lane < LATENT_BOXES ? lane % 2 : now.stage) == pair.rank;
      const int use = now.stage == 0 ? uses[0]++ : uses[1]++;
      STAMP(now.tile - now.item.firstTile == 34 || now.tile - now.item.firstTile == 35, now.stage * 8);
      for (int half = 0; half < 2; half++) {
        barrierWait(sharedAddress(&shared.empty[now.stage][half]), (use & 1) ^ 1);
        STAMP(now.tile - now.item.firstTile == 34 || now.tile - now.item.firstTile == 35, now.stage * 8 + half + 1);
        if (lane < BOXES && owner == half) {
          fetchPieces(a, map, here, now.item, now.tile, lane, sharedAddress(shared.stages[now.stage]) + lane * BOX_BYTES,
                      sharedAddress(&shared.full[now.stage][lane]), fetches, pair.is);
        }
        __syncwarp();
      }
      STAMP(now.tile - now.item.firstTile == 34 || now.tile - now.item.firstTile == 35, now.stage * 8 + 3);
      now = next;
      here = ahead;
      if (!now.more) break;
      if (lane < BOXES && (!pair.is || lane % 2 == pair.rank)) prefetchPieces(a, map, here, now.item, now.tile, lane);
      step(a, shared.schedule, next);
      if (next.more) ahead = locate(a, next.item, next.tile);
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

  /** Scales to base 2, hides what a row may not see, clears what lies past the sequence. Returns each row's maximum. */
  static __device__ __forceinline__ void mask(const Arguments& a, const Item& item, const Place& place, Shared& shared,
                                              int group, int firstToken, float (&s)[32], float (&most)[2]) {
    const float scale = a.softmaxScale * LOG2_E;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int allSee = a.causal ? item.length - a.sQ + 1 : item.length;
#pragma unroll
    for (int i = 0; i < 32; i++) s[i] *= scale;
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
      most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 2));
    }
    if (firstToken + TILE <= item.length) return;
    meet(1 + group, 128);
    clearRows(sharedAddress(shared.stages[group]), LATENT_BOXES, item.length - firstToken, threadIdx.x % 128);
    fenceForAsync();
    meet(1 + group, 128);
  }

  static __device__ __forceinline__ float baseOf(float top) { return top == NEGATIVE_INFINITY ? 0.f : top; }

  static __device__ __forceinline__ float lazyTop(float top, float most) { return most > top + LAZY ? most : top; }

  /** Moves outputs and sums to a new maximum; waits for running products only if there is one. */
  static __device__ __forceinline__ void raise(int group, State& state, const float (&next)[2]) {
    if (!anyOf(1 + group, 128, next[0] != state.top[0] || next[1] != state.top[1])) return;
    warpgroupWait<0>();
    pin(state.out);
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

  /** Probabilities of a tile as operand registers; adds them up into `sum`. */
  static __device__ __forceinline__ void exponentiate(const float (&s)[32], const float (&top)[2], float (&sum)[2],
                                                      uint32_t (&p)[4][4]) {
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

  /** The same with the other warpgroup's probabilities, from shared memory. */
  static __device__ __forceinline__ void startOther(Shared& shared, int group, int parity, State& state) {
    const int stage = group ^ 1;
    const uint32_t tile = sharedAddress(shared.stages[stage]);
    const uint32_t values = tile + group * (HALF_BOXES * BOX_BYTES), p = tile + LATENT_BOXES * BOX_BYTES;
#pragma unroll
    for (int box = 0; box < HALF_BOXES; box++) {
      barrierWait(sharedAddress(&shared.full[stage][group * HALF_BOXES + box]), parity);
    }
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
                                                   Shared& shared, int items, int (&uses)[2], State& state) {
    const int endTile = item.endTile;
    float s[32], next[2];
    uint32_t p[4][4], kept[KEPT][4];
    keepQueries(shared, items, kept);
    startScores<0, BOXES - 1>(shared, 0, uses[0] & 1, kept, s);
    startScores<BOXES - 1, BOXES>(shared, 0, uses[0] & 1, kept, s);
    warpgroupWait<1>();
    if (item.firstTile + 1 < endTile) announce(EVEN_SCORED, CONSUMERS);
    warpgroupWait<0>();
    pin(s);
    for (int tile = item.firstTile;; tile += 2) {
      STAMP(tile - item.firstTile == 32, 0);
      mask(a, item, place, shared, 0, tile * TILE, s, next);
      STAMP(tile - item.firstTile == 32, 1);
      next[0] = lazyTop(state.top[0], next[0]);
      next[1] = lazyTop(state.top[1], next[1]);
      raise(0, state, next);
      exponentiate(s, state.top, state.sum, p);
      share(shared, 0, p, state.top);
      STAMP(tile - item.firstTile == 32, 2);
      uses[0]++;
      if (tile + 1 >= endTile) break;
      meet(ODD_SCORED, CONSUMERS);
      STAMP(tile - item.firstTile == 32, 3);
      startOwn(shared, 0, p, state);
      STAMP(tile - item.firstTile == 32, 4);
      meet(ODD_READY, CONSUMERS);
      STAMP(tile - item.firstTile == 32, 5);
      readTops(shared, 1, next);
      warpgroupWait<0>();
      pin(state.out);
      release(shared, 0, 0, peer);
      STAMP(tile - item.firstTile == 32, 6);
      raise(0, state, next);
      startOther(shared, 0, uses[1]++ & 1, state);
      STAMP(tile - item.firstTile == 32, 8);
      if (tile + 2 >= endTile) {
        warpgroupWait<0>();
        pin(state.out);
        release(shared, 1, 0, peer);
        return;
      }
      // A first part of the scores lies behind the last values in the tensor core's queue: it has work while this warpgroup wakes up.
      startScores<0, 2>(shared, 0, uses[0] & 1, kept, s);
      STAMP(tile - item.firstTile == 32, 9);
      warpgroupWait<1>();
      release(shared, 1, 0, peer);
      STAMP(tile - item.firstTile == 32, 10);
      startScores<2, BOXES - 1>(shared, 0, uses[0] & 1, kept, s);
      startScores<BOXES - 1, BOXES>(shared, 0, uses[0] & 1, kept, s);
      STAMP(tile - item.firstTile == 32, 11);
      warpgroupWait<1>();
      STAMP(tile - item.firstTile == 32, 12);
      if (tile + 3 < endTile) announce(EVEN_SCORED, CONSUMERS);
      warpgroupWait<0>();
      pin(s);
      pin(state.out);
      STAMP(tile - item.firstTile == 32, 13);
    }
    startOwn(shared, 0, p, state);
    warpgroupWait<0>();
    pin(state.out);
    release(shared, 0, 0, peer);
  }

  /** The second warpgroup's part. */
  static __device__ __forceinline__ void oddTiles(const Arguments& a, const Item& item, const Place& place, int peer,
                                                  Shared& shared, int items, int (&uses)[2], State& state) {
    const int endTile = item.endTile;
    float s[32], next[2];
    uint32_t p[4][4], kept[KEPT][4];
    keepQueries(shared, items, kept);
    for (int tile = item.firstTile + 1; tile < endTile; tile += 2) {
      STAMP(tile - item.firstTile == 33, 16);
      meet(EVEN_SCORED, CONSUMERS);
      STAMP(tile - item.firstTile == 33, 17);
      startScores<0, BOXES>(shared, 1, uses[1]++ & 1, kept, s);
      STAMP(tile - item.firstTile == 33, 18);
      meet(EVEN_READY, CONSUMERS);
      STAMP(tile - item.firstTile == 33, 19);
      readTops(shared, 0, next);
      raise(1, state, next);
      startOther(shared, 1, uses[0]++ & 1, state);
      STAMP(tile - item.firstTile == 33, 21);
      warpgroupWait<1>();
      announce(ODD_SCORED, CONSUMERS);
      STAMP(tile - item.firstTile == 33, 22);
      pin(s);
      mask(a, item, place, shared, 1, tile * TILE, s, next);
      STAMP(tile - item.firstTile == 33, 23);
      next[0] = lazyTop(state.top[0], next[0]);
      next[1] = lazyTop(state.top[1], next[1]);
      float added[2] = {0.f, 0.f};
      exponentiate(s, next, added, p);
      share(shared, 1, p, next);
      STAMP(tile - item.firstTile == 33, 24);
      raise(1, state, next);
      state.sum[0] += added[0];
      state.sum[1] += added[1];
      startOwn(shared, 1, p, state);
      STAMP(tile - item.firstTile == 33, 26);
      warpgroupWait<1>();
      release(shared, 0, 1, peer);
      STAMP(tile - item.firstTile == 33, 27);
      warpgroupWait<0>();
      pin(state.out);
      release(shared, 1, 1, peer);
      STAMP(tile - item.firstTile == 33, 28);
    }
    if ((endTile - item.firstTile) % 2 == 0) return;
    meet(EVEN_READY, CONSUMERS);
    readTops(shared, 0, next);
    raise(1, state, next);
    startOther(shared, 1, uses[0]++ & 1, state);
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
    int uses[2] = {0, 0};
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
      STAMP(true, 41);
      State state = {};
      state.top[0] = state.top[1] = NEGATIVE_INFINITY;
      if (group == 0) evenTiles(a, item, place, peer, shared, items, uses, state);
      else oddTiles(a, item, place, peer, shared, items, uses, state);
      STAMP(true, 40);
      if (threadIdx.x % 32 == 0) barrierArrive(sharedAddress(&shared.queriesFree));
      totalSums(shared, group, state);
      if (item.splits == 1) {
        writeAlone(a, item, place, group, state);
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
      STAMP(true, 42);
      meet(ALL_CONSUMERS, CONSUMERS);
      STAMP(true, 43);
    }
  }

  static __device__ void run(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
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
    __syncthreads();
    if (pair.is) {
      clusterArrive();
      clusterWait();
    }
    if (threadIdx.x >= CONSUMERS) {
      giveRegisters<40>();
      if (warp == CONSUMERS / 32) produce(a, map, queryMap, shared, place, pair);
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
