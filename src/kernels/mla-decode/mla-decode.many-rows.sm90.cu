// mlaDecode for Hopper with many query rows a sequence: 64 rows a block, three warpgroups.
//
// One scores: it holds most of the queries in registers, so that the tensor cores read little but keys from shared memory,
// exponentiates, and leaves each tile's probabilities in the tile's rotary box, which is free once the tile is scored. The two
// others hold half of the outputs' width each, 64 × D_C / 2, and multiply probabilities with their half of the tile as values.
// The tensor cores' order is
//
//   scores of tile 1 | values of tile 0, both halves | scores of tile 2 | values of tile 1 …
//
// since the scoring warpgroup announces a tile's probabilities only when the next tile is as good as scored: its softmax then runs beside the
// values of the tile before. Where the next tile is not there yet, it announces at once. Three tiles' latent values and two rotary boxes
// are in shared memory; the warps that free a half of a tile also fetch what takes its place. The same ring brings an item's queries,
// so that the next item's first tiles are scored while this one's results are written. Where a sequence has an even
// number of row blocks, two of them form a cluster: each block fetches every other box and the copy engine writes it to both.
#include "many-rows-merge.cuh"

namespace flashmla {

constexpr int ROWS = 64;
/** Tiles' latent values in shared memory, and rotary boxes. */
constexpr int STAGES = 3;
constexpr int SLOTS = 2;
/** Warpgroups: values of the left half, of the right half, scores. */
constexpr int THREADS = 384;
constexpr int WARPS = THREADS / 32;
/** The first warp that scores; its warpgroup's named barrier (1 and 2 are those of the others). */
constexpr int SCORER = 8;
constexpr int SCORERS = 4;
/** The warp that fetches rotary boxes; the first of each of the outputs' warpgroups fetches halves of tiles. */
constexpr int ROTARY_FETCHER = 5;
/** Rows move to a new maximum only where the 16 probabilities that a thread has of one add up to more than this. */
constexpr float MOST = 256.f;
/** Latent boxes of the next tile whose scores may be outstanding when a tile's probabilities are announced. */
constexpr int LATE = 1;

#ifdef STAMPS
/** For development: cycles of stages, 16 a block; the harness in benchmarks/cuda prints them. */
extern "C" __device__ unsigned manyRowsStamps[256 * 16];
__device__ unsigned manyRowsStamps[256 * 16];
#endif

template <typename T, int D_C> struct ManyRows {
  static constexpr int LATENT_BOXES = D_C / 64;
  static constexpr int HALF = D_C / 2;
  static constexpr int HALF_BOXES = LATENT_BOXES / 2;
  /** Blocks of 8 columns a warpgroup has. */
  static constexpr int STRIPS = HALF / 8;
  /** Boxes whose queries stay in registers; the last latent and the rotary one stay in shared memory. */
  static constexpr int KEPT_BOXES = LATENT_BOXES - 1;
  static constexpr int KEPT = KEPT_BOXES * 4;

  /** What a warp fetches next: a tile of `item`, from these pages, or its queries where `tile` is −1. `items`: queries fetched so far. */
  struct Ahead {
    Walk walk;
    Stretch item;
    int tile, items;
    /** Of the tile, and which tile of the first item they were asked for early. */
    int pages[4], early;
  };

  struct Shared {
    uint8_t stages[STAGES][LATENT_BOXES * BOX_BYTES];
    uint8_t rotary[SLOTS][BOX_BYTES];
    /** The last latent box of the queries, and the rotary one. */
    uint8_t queries[2][BOX_BYTES];
    /** What outputs have to be multiplied with before a tile's values are added, and whether a warp's 16 rows have to be at all. */
    float factors[SLOTS][ROWS];
    int raised[SLOTS][4];
    /** Maximum and sum of each row of an item. */
    float2 stats[ROWS];
    uint64_t full[STAGES][LATENT_BOXES];
    /** One for each half of the values. */
    uint64_t empty[STAGES][2];
    uint64_t rotaryFull[SLOTS], rotaryEmpty[SLOTS];
    /** A tile's probabilities are in its rotary box. */
    uint64_t ready[SLOTS];
    uint64_t queriesFree, statsFree;
    /** Each warp's walk and what it works on, and what the fetching warps are about to fetch: registers are scarce. */
    Walk start, walks[WARPS];
    Stretch items[WARPS];
    Ahead aheads[3];
    /** This block's block of query rows; the slices of a merge that it has, as bits. */
    int rowBlock, slices;
    /** The other block of the pair, or −1. */
    int peer;
#ifdef STAMPS
    unsigned clocks[16];
#endif
  };
  static_assert(sizeof(Shared) <= 3 * TILE * D_C * 2 + 4 * BOX_BYTES + 3072, "as the host says");

  /** Where position `at` of the ring of stages lies, and the parity of that use of the stage. */
  static __device__ __forceinline__ int stageOf(int at) { return static_cast<unsigned>(at) % STAGES; }
  static __device__ __forceinline__ int parityOf(int at) { return static_cast<unsigned>(at) / STAGES & 1; }

#ifdef STAMPS
  static __device__ __forceinline__ unsigned now() { return clock(); }
  static __device__ __forceinline__ void count(Shared& shared, int at, unsigned since) {
    if (threadIdx.x % 128 == 0) shared.clocks[at] += clock() - since;
  }
#else
  static __device__ __forceinline__ unsigned now() { return 0; }
  static __device__ __forceinline__ void count(Shared&, int, unsigned) {}
#endif

  // Operands ----------------------------------------------------------------------------------------------------------

  /** The low half of describe()'s descriptors: offsets added to it in 32 bits stay in uniform registers. The high half is the same for all. */
  static __device__ __forceinline__ uint32_t describeLow(uint32_t address) { return (address & 0x3ffff) >> 4 | 1u << 16; }

  static __device__ __forceinline__ uint64_t descriptor(uint32_t low) {
    uint64_t whole;
    asm("mov.b64 %0, {%1, %2};" : "=l"(whole) : "r"(low), "r"(1024u >> 4 | 1u << 30));
    return whole;
  }

  // Fetching ----------------------------------------------------------------------------------------------------------

  /** Asks for the pages of what is to be fetched next; called by a whole warp, one lane a piece. */
  static __device__ __forceinline__ void askPages(const Arguments& a, Ahead& ahead, int tile) {
    if (tile < 0 || threadIdx.x % 32 >= 4) return;
    const int pageShift = 31 - __clz(a.pageSize), token = tile * TILE + (threadIdx.x % 4 << min(6, pageShift));
    if (token >= ahead.item.length) return;
    const int* page = a.table + static_cast<size_t>(ahead.item.sequence) * a.tableWidth + (token >> pageShift);
    copyAsync4(sharedAddress(&ahead.pages[threadIdx.x % 4]), page);
    commitCopies();
  }

  /** The row of the cache at which this lane's piece (one of at most four) of the tile lies whose pages were asked for. */
  static __device__ __forceinline__ int rowOf(const Arguments& a, const Ahead& ahead, int tile) {
    waitCopies<0>();
    __syncwarp();
    const int pageShift = 31 - __clz(a.pageSize), token = tile * TILE + (threadIdx.x % 4 << min(6, pageShift));
    return (ahead.pages[threadIdx.x % 4] << pageShift) + (token & (a.pageSize - 1));
  }

  /** Moves on; tile is −2 when nothing is left. Called by a whole warp, of which one lane works. */
  static __device__ __forceinline__ void moveOn(const Arguments& a, Ahead& ahead, bool queries) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      int tile = ahead.tile == -1 ? ahead.item.firstTile : ahead.tile + 1;
      if (tile >= ahead.item.endTile) tile = !nextStretch(a, ahead.walk, ahead.item) ? -2 : queries ? -1 : ahead.item.firstTile;
      ahead.tile = tile;
    }
    __syncwarp();
    const bool isThere = ahead.tile == ahead.early;
    __syncwarp();
    if (!isThere) askPages(a, ahead, ahead.tile);
    else if (threadIdx.x % 32 == 0) ahead.early = -1;
  }

  /** Starts at the first item. */
  static __device__ __forceinline__ void openAhead(const Arguments& a, const Walk& walk, Ahead& ahead, bool queries) {
    copyWords(ahead.walk, walk);
    if (threadIdx.x % 32 == 0) {
      ahead.tile = ahead.items = 0;
      ahead.early = -1;
      ahead.item.endTile = 0;
    }
    moveOn(a, ahead, queries);
  }

  /**
   * Lane 4 · i + p: expects box `first + i` of a tile and, where this block `fetches` it, fetches its piece p, for both blocks of a pair.
   */
  static __device__ __forceinline__ void fetchBoxes(const Arguments& a, const CUtensorMap* map, const Ahead& ahead, int row, int column,
                                                    uint32_t target, uint32_t barrier, bool fetches, bool pair) {
    const int shift = min(6, 31 - __clz(a.pageSize)), piece = threadIdx.x % 4;
    const int pieces = (min(TILE, ahead.item.length - ahead.tile * TILE) + (1 << shift) - 1) >> shift;
    if (piece == 0) barrierExpect(barrier, pieces << (shift + 7));
    if (piece >= pieces || !fetches) return;
    if (pair) copyBoxToPair(target + (piece << (shift + 7)), map, column, row, barrier);
    else copyBox(target + (piece << (shift + 7)), map, column, row, barrier);
  }

  /**
   * Fetches half of position `at` of the ring of stages, once that half is free: of queries or of a tile.
   */
  static __device__ __forceinline__ void fetchHalf(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap,
                                                   Shared& shared, int peer, Ahead& ahead, int half, int at) {
    const int tile = ahead.tile, lane = threadIdx.x % 32, stage = stageOf(at);
    if (tile == -2) return;
    barrierWait(sharedAddress(&shared.empty[stage][half]), parityOf(at) ^ 1);
    const int box = half * HALF_BOXES + (tile == -1 ? lane : lane / 4);
    const uint32_t target = sharedAddress(shared.stages[stage]) + box * BOX_BYTES;
    const uint32_t full = sharedAddress(&shared.full[stage][0]) + box * 8;
    if (tile == -1) {
      const int queryRow = ahead.item.sequence * a.rows + shared.rowBlock * ROWS;
      if (lane < HALF_BOXES && box < KEPT_BOXES) {
        barrierExpect(full, BOX_BYTES);
        copyBox(target, queryMap, box * 64, queryRow, full);
      }
      __syncwarp();
      if (half == 1) {
        barrierWait(sharedAddress(&shared.queriesFree), (ahead.items & 1) ^ 1);
        if (box == KEPT_BOXES) {
          ahead.items++;
          barrierExpect(full, 2 * BOX_BYTES);
          copyBox(sharedAddress(shared.queries[0]), queryMap, KEPT_BOXES * 64, queryRow, full);
          copyBox(sharedAddress(shared.queries[1]), queryMap, D_C, queryRow, full);
        }
      }
    } else {
      const int row = rowOf(a, ahead, ahead.tile);
      if (lane < HALF_BOXES * 4) {
        fetchBoxes(a, map, ahead, row, box * 64, target, full, peer < 0 || lane / 4 % 2 != peer, peer >= 0);
      }
    }
    moveOn(a, ahead, true);
  }

  /**
   * Asks for the pages of the first tile while the launches before this one still run, and calls boxes `first` to `first` + `boxes` (at most 4) of it
   * into the second-level cache, of a pair's this block's half. What those launches write there meanwhile is seen all the same: it goes
   * through that cache.
   */
  static __device__ __forceinline__ void beginEarly(const Arguments& a, const CUtensorMap* map, int peer, Ahead& ahead, int first, int boxes) {
    const int lane = threadIdx.x % 32, box = first + lane / 4, shift = min(6, 31 - __clz(a.pageSize)), tile = ahead.item.firstTile;
    const int token = tile * TILE + (lane % 4 << shift);
    if (ahead.tile != tile) askPages(a, ahead, tile);
    // Blocks of a pair end and begin together: the launch before has ended by now.
    if (peer < 0) {
      const int row = rowOf(a, ahead, tile);
      if (lane / 4 < boxes && lane % 4 << shift < TILE && token < ahead.item.length) prefetchBox(map, box * 64, row);
    }
    if (lane == 0 && ahead.tile != tile) ahead.early = tile;
    __syncwarp();
  }

  /** Fetches the rotary box of the block's `tiles`th tile, once its slot is free. */
  static __device__ __forceinline__ void fetchRotary(const Arguments& a, const CUtensorMap* map, Shared& shared, int peer,
                                                     Ahead& ahead, int tiles) {
    const int slot = tiles % SLOTS;
    if (ahead.tile == -2) return;
    barrierWait(sharedAddress(&shared.rotaryEmpty[slot]), (tiles / SLOTS & 1) ^ 1);
    const int row = rowOf(a, ahead, ahead.tile);
    if (threadIdx.x % 32 < 4) {
      fetchBoxes(a, map, ahead, row, D_C, sharedAddress(shared.rotary[slot]), sharedAddress(&shared.rotaryFull[slot]),
                 peer < 0 || slot != peer, peer >= 0);
    }
    moveOn(a, ahead, false);
  }

  // Scores ------------------------------------------------------------------------------------------------------------

  /** Announces the probabilities in slot `pending`, if any; called by whole warps, each for its own rows, after fenceForAsync. */
  static __device__ __forceinline__ void announceSlot(Shared& shared, int& pending) {
    __syncwarp();
    if (pending >= 0 && arrivesForWarp()) barrierArrive(sharedAddress(&shared.ready[pending]));
    pending = -1;
  }

  /** Waits for what a barrier counts; what is pending is announced first if that may take time. */
  static __device__ __forceinline__ void waitFull(uint32_t barrier, int phase, Shared& shared, int& pending) {
    if (pending >= 0 && !__all_sync(~0u, barrierTest(barrier, phase))) {
      fenceForAsync();
      announceSlot(shared, pending);
    }
    barrierWait(barrier, phase);
  }

  /** All but the last latent box of the queries as operand registers. */
  static __device__ __forceinline__ void keepQueries(Shared& shared, int at, int& pending, uint32_t (&kept)[KEPT][4]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int box = 0; box < LATENT_BOXES; box++) {
      waitFull(sharedAddress(&shared.full[stageOf(at)][box]), parityOf(at), shared, pending);
      if (box == KEPT_BOXES) break;
#pragma unroll
      for (int k = 0; k < 4; k++) {
        loadMatrices(kept[box * 4 + k], swizzled(sharedAddress(shared.stages[stageOf(at)]) + box * BOX_BYTES,
                                                 warp * 16 + lane / 8 % 2 * 8 + lane % 8, k * 2 + lane / 16));
      }
    }
  }

  /** Starts s[64 rows × 64 tokens] += queries · keys for boxes FIRST to END of the tile's latent ones. */
  template <int FIRST, int END>
  static __device__ __forceinline__ void startScores(Shared& shared, int at, uint32_t keys, const uint32_t (&kept)[KEPT][4],
                                                     float (&s)[32]) {
    const uint32_t queries = describeLow(sharedAddress(shared.queries[0]));
#pragma unroll
    for (int box = FIRST; box < END; box++) {
      barrierWait(sharedAddress(&shared.full[stageOf(at)][box]), parityOf(at));
      warpgroupArrive();
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const uint64_t key = descriptor(keys + (box * BOX_BYTES + k * 32) / 16);
        if (box == 0 && k == 0) WgmmaRegisters<T, 64, 0>::start(s, kept[0], key);
        else if (box < KEPT_BOXES) WgmmaRegisters<T, 64, 0>::run(s, kept[box * 4 + k], key);
        else Wgmma<T, 64, 0, 0>::run(s, descriptor(queries + k * 2), key);
      }
    }
    warpgroupCommit();
  }

  /** The rotary box's part of the scores. */
  static __device__ __forceinline__ void startRotary(Shared& shared, int slot, int parity, float (&s)[32]) {
    barrierWait(sharedAddress(&shared.rotaryFull[slot]), parity);
    const uint32_t keys = describeLow(sharedAddress(shared.rotary[slot])), queries = describeLow(sharedAddress(shared.queries[1]));
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) Wgmma<T, 64, 0, 0>::run(s, descriptor(queries + k * 2), descriptor(keys + k * 2));
    warpgroupCommit();
  }

  /** Hides what a row may not see, clears what lies past the sequence. */
  static __device__ __forceinline__ void mask(const Arguments& a, const Item& item, Shared& shared, int stage,
                                              int firstToken, float (&s)[32]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int allSee = a.causal ? item.length - a.sQ + 1 : item.length;
    if (a.softmaxScale < 0.f) {
#pragma unroll
      for (int i = 0; i < 32; i++) s[i] = -s[i];
    }
    if (firstToken + TILE > allSee) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = shared.rowBlock * ROWS + warp * 16 + lane / 4 + half * 8;
        const int visible = visibleTokens(a, item, row) - firstToken - lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 16; i++) {
          if (i / 2 * 8 + i % 2 >= visible) s[i / 2 * 4 + half * 2 + i % 2] = NEGATIVE_INFINITY;
        }
      }
    }
    if (firstToken + TILE > item.length) {
      // All of the warpgroup's products have read what lies past the sequence.
      meet(SCORERS, 128);
      clearRows(sharedAddress(shared.stages[stage]), LATENT_BOXES, item.length - firstToken, threadIdx.x % 128);
    }
  }

  static __device__ __forceinline__ float baseOf(float top) { return top == NEGATIVE_INFINITY ? 0.f : top; }

  /** Of scores whose sign is the scale's; never 0, so that what is hidden stays at −∞. */
  static __device__ __forceinline__ float scaleOf(const Arguments& a) { return fmaxf(fabsf(a.softmaxScale) * LOG2_E, 1e-30f); }

  /** Moves the warp's rows to their maxima so far, and tells the outputs' warps. */
  static __device__ __forceinline__ void raise(Shared& shared, int slot, float scale, const float (&s)[32], float (&top)[2],
                                               float (&sum)[2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float most = NEGATIVE_INFINITY;
#pragma unroll
      for (int i = 0; i < 16; i++) most = fmaxf(most, s[i / 2 * 4 + half * 2 + i % 2]);
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(fmaxf(most, __shfl_xor_sync(~0u, most, 2)) * scale, top[half]);
      const float factor = exp2Fast(top[half] - baseOf(most));
      top[half] = most;
      sum[half] *= factor;
      if (lane % 4 == 0) shared.factors[slot][warp * 16 + lane / 4 + half * 8] = factor;
    }
  }

  /** Probabilities of a tile as operand registers, and this thread's sums of them. */
  static __device__ __forceinline__ void exponentiate(float scale, const float (&s)[32], const float (&top)[2], float (&sum)[2],
                                                      uint32_t (&p)[4][4]) {
    const float base[2] = {baseOf(top[0]), baseOf(top[1])};
    sum[0] = sum[1] = 0.f;
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
      const int half = i / 2 % 2;
      const float x = exp2Fast(fmaf(s[i], scale, -base[half])), y = exp2Fast(fmaf(s[i + 1], scale, -base[half]));
      sum[half] += x + y;
      p[i / 8][i / 4 % 2 * 2 + half] = pack<T>(x, y);
    }
  }

  /** A tile's probabilities, by the maxima of the tiles before as long as they serve; adds them up into `sum`. */
  static __device__ __forceinline__ void softmax(const Arguments& a, Shared& shared, int slot, bool first, const float (&s)[32],
                                                 float (&top)[2], float (&sum)[2], uint32_t (&p)[4][4]) {
    const float scale = scaleOf(a);
    float added[2];
    exponentiate(scale, s, top, added, p);
    const bool serve = added[0] <= MOST && added[1] <= MOST && top[0] > NEGATIVE_INFINITY && top[1] > NEGATIVE_INFINITY;
    const bool rises = !__all_sync(~0u, serve);
    if (rises) {
      raise(shared, slot, scale, s, top, sum);
      exponentiate(scale, s, top, added, p);
    }
    // An item's first outputs are zeros.
    if (threadIdx.x % 32 == 0) shared.raised[slot][threadIdx.x / 32 % 4] = rises && !first;
    sum[0] += added[0];
    sum[1] += added[1];
  }

  /** Leaves a tile's probabilities in its rotary box. */
  static __device__ __forceinline__ void storeProbabilities(uint32_t box, const uint32_t (&p)[4][4]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      storeMatrices(swizzled(box, warp * 16 + lane / 8 % 2 * 8 + lane % 8, k * 2 + lane / 16), p[k]);
    }
  }

  /** Leaves an item's maxima and sums where the outputs' warps read them. */
  static __device__ __forceinline__ void storeStats(Shared& shared, int items, const float (&top)[2], const float (&sum)[2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float total[2] = {sum[0], sum[1]};
    barrierWait(sharedAddress(&shared.statsFree), (items & 1) ^ 1);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      total[half] += __shfl_xor_sync(~0u, total[half], 1);
      total[half] += __shfl_xor_sync(~0u, total[half], 2);
      if (lane % 4 == 0) shared.stats[warp * 16 + lane / 4 + half * 8] = make_float2(top[half], total[half]);
    }
  }

  static __device__ void score(const Arguments& a, Shared& shared, int peer) {
    const int warp = uniform(threadIdx.x / 32);
    Walk& walk = shared.walks[warp];
    Stretch& item = shared.items[warp];
    int at = 0, pending = -1, tiles = 0;
    for (int items = 0; takeStretch(a, walk, item); items++) {
      uint32_t kept[KEPT][4];
      unsigned since = now();
      keepQueries(shared, at, pending, kept);
      __syncwarp();
      release(shared, stageOf(at), 0, peer);
      release(shared, stageOf(at), 1, peer);
      at++;
      count(shared, 0, since);
      const int firstTile = uniform(item.firstTile), endTile = uniform(item.endTile);
      float top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {0.f, 0.f};
#pragma unroll 1
      for (int tile = firstTile; tile < endTile; tile++, tiles++, at++) {
        const int slot = tiles % SLOTS;
        float s[32];
        uint32_t p[4][4];
        since = now();
        waitFull(sharedAddress(&shared.full[stageOf(at)][0]), parityOf(at), shared, pending);
        count(shared, 1, since);
        since = now();
        const uint32_t keys = describeLow(sharedAddress(shared.stages[stageOf(at)]));
        startScores<0, 1>(shared, at, keys, kept, s);
        // For the probabilities that are still to be announced.
        fenceForAsync();
        startScores<1, LATENT_BOXES - LATE>(shared, at, keys, kept, s);
        startScores<LATENT_BOXES - LATE, LATENT_BOXES>(shared, at, keys, kept, s);
        warpgroupWait<1>();
        announceSlot(shared, pending);
        count(shared, 2, since);
        since = now();
        startRotary(shared, slot, tiles / SLOTS & 1, s);
        warpgroupWait<0>();
        pin(s);
        count(shared, 9, since);
        since = now();
        const bool last = tile + 1 == endTile;
        if (last && arrivesForWarp()) barrierArrive(sharedAddress(&shared.queriesFree));
        mask(a, item, shared, stageOf(at), tile * TILE, s);
        softmax(a, shared, slot, tile == firstTile, s, top, sum, p);
        // All of the warpgroup's products have read the rotary box.
        meet(SCORERS, 128);
        storeProbabilities(sharedAddress(shared.rotary[slot]), p);
        if (last) storeStats(shared, items, top, sum);
        pending = slot;
        count(shared, 3, since);
#ifdef STAMPS
        if (threadIdx.x % 128 == 0) shared.clocks[15]++;
#endif
      }
    }
    fenceForAsync();
    announceSlot(shared, pending);
  }

  // Values ------------------------------------------------------------------------------------------------------------

  /** Starts out += probabilities · this warpgroup's half of the stage's values. */
  static __device__ __forceinline__ void startValues(Shared& shared, int stage, int slot, int group, float (&out)[HALF / 2]) {
    const uint32_t values = uniform(sharedAddress(shared.stages[stage]) + group * (HALF_BOXES * BOX_BYTES));
    const uint32_t p = uniform(sharedAddress(shared.rotary[slot]));
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
      Wgmma<T, HALF, 0, 1>::run(out, describe(p + k * 32), describe(values + k * 2048, BOX_BYTES));
    }
    warpgroupCommit();
  }

  /** Tells both blocks of the pair, or this one where `peer` is −1, that this warp is through with something. */
  static __device__ __forceinline__ void arriveAtBoth(uint32_t barrier, int peer) {
    if (!arrivesForWarp()) return;
    barrierArrive(barrier);
    if (peer >= 0) barrierArriveRelaxedAt(barrier, peer);
  }

  /** This warp needs that half of the stage no more. */
  static __device__ __forceinline__ void release(Shared& shared, int stage, int half, int peer) {
    arriveAtBoth(sharedAddress(&shared.empty[stage][half]), peer);
  }

  /** Multiplies outputs where a maximum has risen. */
  static __device__ __forceinline__ void rescale(const Shared& shared, int slot, float (&out)[HALF / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    if (shared.raised[slot][warp] == 0) return;
    const float factor[2] = {shared.factors[slot][warp * 16 + lane / 4], shared.factors[slot][warp * 16 + lane / 4 + 8]};
#pragma unroll
    for (int i = 0; i < HALF / 2; i++) out[i] *= factor[i / 2 % 2];
    pin(out);
  }

  static __device__ void multiply(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap, Shared& shared) {
    const int warp = uniform(threadIdx.x / 32), group = warp / 4;
    Walk& walk = shared.walks[warp];
    Stretch& item = shared.items[warp];
    const bool fetchesHalf = warp % 4 == 0;
    Ahead& ahead = shared.aheads[min(group + warp % 4, 2)];
    if (fetchesHalf || warp == ROTARY_FETCHER) {
      const bool works = walk.unit < walk.end;
      openAhead(a, walk, ahead, fetchesHalf);
      if (works) beginEarly(a, map, shared.peer, ahead, fetchesHalf ? group * HALF_BOXES : LATENT_BOXES, fetchesHalf ? HALF_BOXES : 1);
      if (works || walk.total == 0) waitForEarlier();
    }
    // Position of the ring, tiles so far: where they are negative, the ring has yet to be filled.
    int at = -STAGES, tiles = -SLOTS;
#pragma unroll 1
    for (; at < 0; at++) {
      if (fetchesHalf) fetchHalf(a, map, queryMap, shared, shared.peer, ahead, group, at + STAGES);
    }
#pragma unroll 1
    for (; tiles < 0; tiles++) {
      if (warp == ROTARY_FETCHER) fetchRotary(a, map, shared, shared.peer, ahead, tiles + SLOTS);
    }
    while (takeStretch(a, walk, item)) {
      const int firstTile = uniform(item.firstTile), endTile = uniform(item.endTile), splits = uniform(item.splits);
      float out[HALF / 2];
#pragma unroll
      for (int i = 0; i < HALF / 2; i++) out[i] = 0.f;
      // Before the first tile, the ring brings the queries.
#pragma unroll 1
      for (int tile = firstTile - 1; tile < endTile; tile++, at++) {
        unsigned since = now();
        if (tile >= firstTile) {
          const int slot = tiles % SLOTS;
          barrierWait(sharedAddress(&shared.ready[slot]), tiles / SLOTS & 1);
          count(shared, 4 + group * 2, since);
          since = now();
          rescale(shared, slot, out);
          startValues(shared, stageOf(at), slot, group, out);
          warpgroupWait<0>();
          pin(out);
          count(shared, 5 + group * 2, since);
          since = now();
          arriveAtBoth(sharedAddress(&shared.rotaryEmpty[slot]), shared.peer);
          if (tile + 1 == endTile && splits == 1) writeAlone(a, shared, item, stageOf(at), group, out);
          release(shared, stageOf(at), group, shared.peer);
          if (warp == ROTARY_FETCHER) fetchRotary(a, map, shared, shared.peer, ahead, tiles + SLOTS);
          tiles++;
        }
        if (fetchesHalf) fetchHalf(a, map, queryMap, shared, shared.peer, ahead, group, at + STAGES);
        if (tile >= firstTile) count(shared, 12 + group, since);
      }
      if (splits > 1) writePart(a, shared, partOf(a, walk, item, shared.rowBlock), group, out);
    }
  }

  /** The maxima and sums of this thread's two rows. */
  static __device__ __forceinline__ void readStats(Shared& shared, float2 (&stats)[2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    stats[0] = shared.stats[warp * 16 + lane / 4];
    stats[1] = shared.stats[warp * 16 + lane / 4 + 8];
    __syncwarp();
    if (arrivesForWarp()) barrierArrive(sharedAddress(&shared.statsFree));
  }

  /** The result of a sequence that no other block has a part of. */
  static __device__ __forceinline__ void writeAlone(const Arguments& a, Shared& shared, const Stretch& item, int stage, int group,
                                                    float (&out)[HALF / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float2 stats[2];
    readStats(shared, stats);
    const size_t first = static_cast<size_t>(item.sequence) * a.rows + shared.rowBlock * ROWS;
    const int rows = a.rows - shared.rowBlock * ROWS;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = warp * 16 + lane / 4 + half * 8;
      const bool seen = stats[half].y > 0.f;
      const float factor = seen ? __fdividef(1.f, stats[half].y) : 0.f;
#pragma unroll
      for (int j = 0; j < STRIPS; j++) {
        out[j * 4 + half * 2] *= factor;
        out[j * 4 + half * 2 + 1] *= factor;
      }
      if (group == 0 && lane % 4 == 0 && row < rows) {
        a.lse[first + row] = seen ? (stats[half].x + log2f(stats[half].y)) * LN_2 : -NEGATIVE_INFINITY;
      }
    }
    if (a.outFloat) {
      writeFloats(a, first, rows, group, out);
    } else {
      writeStaged(a, sharedAddress(shared.stages[stage]) + group * (HALF_BOXES * BOX_BYTES), first, rows, group, out);
      fenceForAsync();
      __syncwarp();
    }
  }

  static __device__ __forceinline__ void writeFloats(const Arguments& a, size_t first, int rows, int group,
                                                     const float (&out)[HALF / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = warp * 16 + lane / 4 + half * 8;
      if (row >= rows) continue;
      float* target = static_cast<float*>(a.out) + (first + row) * D_C + group * HALF + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < STRIPS; j++) {
        *reinterpret_cast<float2*>(target + j * 8) = make_float2(out[j * 4 + half * 2], out[j * 4 + half * 2 + 1]);
      }
    }
  }

  /** In 16 bits, by way of the half of the stage that is this warpgroup's: rows leave whole. */
  static __device__ __forceinline__ void writeStaged(const Arguments& a, uint32_t staging, size_t first, int rows, int group,
                                                     const float (&out)[HALF / 2]) {
    constexpr int CHUNKS = HALF / 8, ROWS_AT_ONCE = 32 / CHUNKS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    // All of the warpgroup's products have read it.
    meet(1 + group, 128);
#pragma unroll
    for (int j = 0; j < STRIPS; j += 2) {
      const uint32_t pairs[4] = {pack<T>(out[j * 4], out[j * 4 + 1]), pack<T>(out[j * 4 + 2], out[j * 4 + 3]),
                                 pack<T>(out[j * 4 + 4], out[j * 4 + 5]), pack<T>(out[j * 4 + 6], out[j * 4 + 7])};
      storeMatrices(swizzled(staging + j / 8 * BOX_BYTES, warp * 16 + lane / 8 % 2 * 8 + lane % 8, j % 8 + lane / 16), pairs);
    }
    __syncwarp();
    const int chunk = lane % CHUNKS;
#pragma unroll 4
    for (int i = 0; i < 16; i += ROWS_AT_ONCE) {
      const int row = warp * 16 + i + lane / CHUNKS;
      const uint4 piece = loadShared16(swizzled(staging + chunk / 8 * BOX_BYTES, row, chunk % 8));
      if (row < rows) *reinterpret_cast<uint4*>(static_cast<T*>(a.out) + (first + row) * D_C + group * HALF + chunk * 8) = piece;
    }
  }

  /** A split's part, as its registers lie: strip by strip, four values a thread. */
  static __device__ __forceinline__ void writePart(const Arguments& a, Shared& shared, int part, int group, float (&out)[HALF / 2]) {
    {
      float4* const own = partStats<ROWS>(a, part) + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
      float2 stats[2];
      readStats(shared, stats);
      if (group == 0 && threadIdx.x % 4 == 0) {
        __stcg(reinterpret_cast<float2*>(own), stats[0]);
        __stcg(reinterpret_cast<float2*>(own + 8), stats[1]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float largest = 0.f;
#pragma unroll
      for (int i = 0; i < STRIPS * 2; i++) largest = fmaxf(largest, fabsf(out[i / 2 * 4 + half * 2 + i % 2]));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      const float inverse = largest > 1e-30f ? __fdividef(1.f, largest) : 0.f;
      if (threadIdx.x % 4 == 0) {
        float4* const own = partStats<ROWS>(a, part) + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + half * 8;
        __stcg(reinterpret_cast<float*>(own) + 2 + group, largest);
      }
      uint4* const target = partValues<ROWS * D_C>(a, part) + group * STRIPS / 2 * 128 + threadIdx.x % 128;
#pragma unroll
      for (int quad = 0; quad < STRIPS / 4; quad++) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int at = (quad * 4 + i) * 4 + half * 2;
          pairs[i] = pack<f16>(out[at] * inverse, out[at + 1] * inverse);
        }
        __stcg(target + (quad * 2 + half) * 128, make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
      }
    }
  }

  // -------------------------------------------------------------------------------------------------------------------

  static __device__ __forceinline__ void initBarriers(Shared& shared, bool pair) {
    const int blocks = pair ? 2 : 1;
    for (int stage = 0; stage < STAGES; stage++) {
      for (int box = 0; box < LATENT_BOXES; box++) barrierInit(sharedAddress(&shared.full[stage][box]), 1);
      barrierInit(sharedAddress(&shared.empty[stage][0]), blocks * 4 * WARP_ARRIVALS);
      barrierInit(sharedAddress(&shared.empty[stage][1]), blocks * 4 * WARP_ARRIVALS);
    }
    for (int slot = 0; slot < SLOTS; slot++) {
      barrierInit(sharedAddress(&shared.rotaryFull[slot]), 1);
      barrierInit(sharedAddress(&shared.rotaryEmpty[slot]), blocks * 8 * WARP_ARRIVALS);
      barrierInit(sharedAddress(&shared.ready[slot]), 4 * WARP_ARRIVALS);
    }
    barrierInit(sharedAddress(&shared.queriesFree), 4 * WARP_ARRIVALS);
    barrierInit(sharedAddress(&shared.statsFree), 8 * WARP_ARRIVALS);
    barrierInitFence();
  }

  static __device__ void run(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    letNextBegin();
#ifdef STAMPS
    const unsigned entered = clock();
    if (threadIdx.x < 16) shared.clocks[threadIdx.x] = 0;
#endif
    const Pair pair = {clusterSize() == 2, clusterRank()};
    const int warp = uniform(threadIdx.x / 32);
    if (threadIdx.x == 32) {
      prefetchMap(map);
      prefetchMap(queryMap);
      initBarriers(shared, pair.is);
    }
    __syncwarp();
    // Before the lengths, so that nobody waits for the other block afterwards; only the barriers have to be seen there.
    if (pair.is && warp == 1) clusterArrive();
    else if (pair.is) clusterArriveRelaxed();
    if (warp == 0) {
      const unsigned since = now();
      const Place place = placeOfPair(a, pair);
      const Walk walk = openWalk(a, place);
      count(shared, 8, since);
      shared.start = walk;
      shared.rowBlock = place.rowBlock;
      shared.peer = pair.is ? pair.rank ^ 1 : -1;
      if (threadIdx.x < WARPS) shared.walks[threadIdx.x] = walk;
    } else {
      touchParameters(a, warp);
    }
    __syncthreads();
    if (pair.is) clusterWait();
#ifdef STAMPS
    if (threadIdx.x == 0) shared.clocks[11] += clock() - entered;
#endif
    const int peer = pair.is ? pair.rank ^ 1 : -1;
    if (warp >= SCORER) {
      takeRegisters<184>();
      score(a, shared, peer);
      if (shared.peer >= 0) clusterArrive();
    } else {
      giveRegisters<160>();
      multiply(a, map, queryMap, shared);
      if (shared.peer >= 0) clusterArrive();
      Merge<T, D_C, ROWS>::all(a, shared);
    }
#ifdef STAMPS
    __syncthreads();
    if (threadIdx.x == 0) shared.clocks[10] += clock() - entered;
    __syncthreads();
    if (threadIdx.x < 16 && blockIdx.x < 256) manyRowsStamps[blockIdx.x * 16 + threadIdx.x] = shared.clocks[threadIdx.x];
#endif
    // The other block of the pair may still write to this one's barriers.
    if (shared.peer >= 0) clusterWait();
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
#ifndef ONE_BUILD
MANY_ROWS(bf16, 256)
MANY_ROWS(f16, 512)
MANY_ROWS(f16, 256)
#endif
