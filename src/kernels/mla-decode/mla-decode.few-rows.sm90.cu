// mlaDecode for Hopper with at most 32 query rows a block. The operands are swapped: Sᵀ = K·Qᵀ with 64 cached tokens as the
// tensor core's 64 rows and the query rows (padded to N) as its columns, then Oᵀ = Vᵀ·Pᵀ. Two warpgroups work on every tile: each
// multiplies half of the channels for the scores, both add up in shared memory and exponentiate row by row, and each multiplies the
// values of half of the latent width. A cluster's blocks take tiles in turn; at the end each sends the others their columns of its
// normalised result in 16 bits. The launch may begin before the one before it ends.
#include "../common/elements.cuh"
#include "even-shares.cuh"

namespace flashmla {

constexpr int D_R = 64;
constexpr int THREADS = CONSUMERS + 32;
/** Floats from one row to the next in scores: 8·t + g covers all 32 banks. */
constexpr int PITCH = 68;
/** Outputs move to a new maximum only when it is this much larger, in powers of two. */
constexpr float LAZY = 8.f;
/** Entries of a block table that is copied to shared memory while the lengths are on their way; larger ones are read where they are. */
constexpr int NEAR_TABLE = 2048;
/** Named barrier: the table is there. */
constexpr int TABLE_THERE = 4;

template <typename T> constexpr bool IS_BF16 = false;
template <> constexpr bool IS_BF16<bf16> = true;

/** FLAT: entries have 32 rotary values, fetched box by box by maps of two dimensions: what lies past an entry's end comes as zeros. */
template <typename T, int D_C, int N, bool FLAT = false> struct FewRows {
  static constexpr int BOXES = (D_C + D_R) / 64;
  static constexpr int LATENT_BOXES = D_C / 64;
  static constexpr int HALF_BOXES = LATENT_BOXES / 2;
  /** Boxes that one copy fetches where pages hold whole tiles, and copies a tile. */
  static constexpr int GROUP = D_C == 512 ? 3 : 5;
  static constexpr int COPIES = BOXES / GROUP;
  static constexpr int STAGE_BYTES = BOXES * BOX_BYTES;
  static constexpr int QUERY_BYTES = BOXES * N * 128;
  /** Threads that exponentiate a row of a tile, and tokens each has. */
  static constexpr int LANES = CONSUMERS / N;
  static constexpr int TOKENS = TILE / LANES;
  /**
   * Probabilities in bf16 are two terms, the second one the first one's remainder, as columns of their own: where the columns are this few, reading
   * the values from shared memory is what a product takes, so that they cost no time.
   */
#ifdef ONE_TERM
  static constexpr int TERMS = 1;
#else
  static constexpr int TERMS = IS_BF16<T> && N <= 16 ? 2 : 1;
#endif
  static constexpr int COLUMNS = N * TERMS;
  /** Results, one message for each block of the cluster: see {@link Message}. */
  static constexpr int RESULT_BYTES = N * (D_C * 2 + 16 * 8);
  /**
   * Results of 32 rows take the queries' place and stay there until every block of the cluster has read its columns. Others are sent
   * as bulk copies, which takes a third of the time; compute-sanitizer knows only the first way (and only cluster-wide barriers).
   */
#ifdef SANITIZED
  static constexpr bool PULLS = true, WHOLE_BARRIERS = true;
#else
  static constexpr bool PULLS = N == 32, WHOLE_BARRIERS = false;
#endif
  static constexpr bool REPLACES_QUERIES = N == 32;
  static_assert(!REPLACES_QUERIES || RESULT_BYTES <= QUERY_BYTES, "results fit where the queries were");

  /**
   * What one block has for another: [row][its columns as f16, maximum and sum, 8 bytes that put 8 rows into different banks]. The f16 values are to be
   * multiplied by a power of two, one for each of the warps that had 16 of every 64 columns: its exponent, as in a float32, is a
   * byte of the first row's last 8.
   */
  struct Message {
    /** Logarithm of a block's columns. */
    int shift, pitch, bytes;

    __device__ __forceinline__ Message(int size) {
      shift = 31 - __clz(D_C / size);
      pitch = (2 << shift) + 16;
      bytes = N * pitch;
    }

    /** Where a row of a column lies among the messages. */
    __device__ __forceinline__ int at(int row, int column) const {
      return (column >> shift) * bytes + row * pitch + (column & ((1 << shift) - 1)) * 2;
    }

    __device__ __forceinline__ int statsAt(int rank, int row) const { return rank * bytes + row * pitch + (2 << shift); }

    /** Where a warp's exponent lies in the message for `rank`. */
    __device__ __forceinline__ int exponentAt(int rank, int warp) const { return statsAt(rank, 0) + 8 + warp; }
  };

  struct Shared {
    uint8_t stages[2][STAGE_BYTES];
    uint8_t queries[QUERY_BYTES];
    uint8_t probabilities[COLUMNS * 128];
    uint8_t results[REPLACES_QUERIES ? 16 : RESULT_BYTES];
    /** What the cluster's blocks sent. */
    uint8_t inbox[PULLS ? 16 : RESULT_BYTES];
    float scores[2][N * PITCH];
    /** Maximum and sum of each row. */
    float2 stats[N];
    float factors[N];
    Task task;
    uint64_t full[2][COPIES];
    uint64_t empty[2];
    /** The task is known; its queries are there; nobody needs them any more. */
    uint64_t taskKnown, queriesFull, queriesFree;
    /** All results of the cluster's blocks can be read; all blocks have read this one's. */
    uint64_t published, consumed;
    int table[NEAR_TABLE];
    Schedule schedule;
  };
  static_assert(sizeof(Shared) <= 232448, "shared memory of a block");

  static __device__ __forceinline__ uint32_t resultsOf(const Shared& shared) {
    return sharedAddress(REPLACES_QUERIES ? shared.queries : shared.results);
  }

  static __device__ __forceinline__ bool isNear(const Arguments& a) { return a.batch * a.tableWidth <= NEAR_TABLE; }

  /** The whole block table to shared memory if it is small, else near. */
  static __device__ __forceinline__ void fetchTable(const Arguments& a, Shared& shared) {
    const int entries = a.batch * a.tableWidth, thread = threadIdx.x;
    if (isNear(a)) {
      int value[NEAR_TABLE / CONSUMERS];
#pragma unroll
      for (int i = 0; i < NEAR_TABLE / CONSUMERS; i++) {
        if (i * CONSUMERS + thread < entries) value[i] = a.table[i * CONSUMERS + thread];
      }
#pragma unroll
      for (int i = 0; i < NEAR_TABLE / CONSUMERS; i++) {
        if (i * CONSUMERS + thread < entries) shared.table[i * CONSUMERS + thread] = value[i];
      }
      announce(TABLE_THERE, THREADS);
    } else if (entries <= 128 * 1024) {
      for (int i = thread * 32; i < entries; i += CONSUMERS * 32) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(a.table + i) : "memory");
      }
    }
  }

  /** The warp that fetches tasks, queries and tiles. */
  struct Producer {
    const Arguments& a;
    const CUtensorMap *map, *queryMap;
    Shared& shared;
    const Place& place;
    /** Tiles and tasks so far. */
    int tiles, tasks;

    /** Fetches the queries of a sequence; one lane. */
    __device__ __forceinline__ void fetchQueries(int sequence) const {
      const uint32_t full = sharedAddress(&shared.queriesFull);
      barrierExpect(full, QUERY_BYTES);
      const uint32_t target = sharedAddress(shared.queries);
      const int row = sequence * a.rows + place.rowBlock * N;
      if constexpr (FLAT) {
        for (int box = 0; box < BOXES; box++) copyBox(target + box * N * 128, queryMap, box * 64, row, full);
      } else {
        copyBoxes(target, queryMap, row, 0, full);
      }
    }

    /** Tells the other warps of a task, once they are through with the last one's queries. */
    __device__ __forceinline__ void tell(const Task& task) {
      barrierWait(sharedAddress(&shared.queriesFree), (tasks++ & 1) ^ 1);
      if (threadIdx.x % 32 == 0) {
        shared.task.copy(task);
        barrierArrive(sharedAddress(&shared.taskKnown));
      }
      __syncwarp();
    }

    __device__ __forceinline__ void fetchTile(const Pieces& pieces, int stage) const {
      const uint32_t target = sharedAddress(shared.stages[stage]);
#pragma unroll
      for (int i = 0; i < COPIES; i++) {
        // Both warpgroups begin at an end of the channels and meet in the middle.
        const int copy = COPIES == 3 ? (i * 2) % 3 : i;
        const uint32_t full = sharedAddress(&shared.full[stage][copy]);
        barrierExpect(full, (pieces.count << (pieces.shift + 7)) * GROUP);
        if (!FLAT && pieces.shift == 6) {
          if (pieces.count > 0) copyBoxes(target + copy * GROUP * BOX_BYTES, map, pieces.row[0], copy * GROUP, full);
          continue;
        }
        for (int box = copy * GROUP; box < copy * GROUP + GROUP; box++) {
#pragma unroll
          for (int p = 0; p < 4; p++) {
            if (p >= pieces.count) continue;
            const uint32_t piece = target + box * BOX_BYTES + (p << (pieces.shift + 7));
            if constexpr (FLAT) copyBox(piece, map, box * 64, pieces.row[p], full);
            else copyBoxes(piece, map, pieces.row[p], box, full);
          }
        }
      }
    }

    /** Where a tile lies, by the table in shared memory. */
    __device__ __forceinline__ Pieces nearPieces(const Task& task, int tile) const {
      const int shift = Pages::pieceShiftOf(a), pageShift = 31 - __clz(a.pageSize);
      const int tokens = max(0, min(TILE, task.length - tile * TILE));
      const int* row = shared.table + task.sequence * a.tableWidth;
      Pieces pieces;
      pieces.shift = shift;
      pieces.count = (tokens + (1 << shift) - 1) >> shift;
#pragma unroll
      for (int p = 0; p < 4; p++) {
        const int token = tile * TILE + (p << shift);
        pieces.row[p] = p < pieces.count ? (row[token >> pageShift] << pageShift) + (token & (a.pageSize - 1)) : 0;
      }
      return pieces;
    }

    __device__ __forceinline__ void work(const Task& task) {
      const bool isFirst = tasks == 0, near = isNear(a);
      int tile = task.firstTile + place.rank;
      if (isFirst) tell(task);
      Pages pages(a, task, tile, !near);
      if (isFirst) {
        waitForEarlier();
        // Before the first tile: behind it, they would wait for memory with it.
        if (threadIdx.x % 32 == 0) fetchQueries(task.sequence);
        __syncwarp();
      }
      // A later task's first tile goes before its queries, which have to wait for the task before it.
      for (bool asked = isFirst; !asked || tile < task.endTile; tile += place.size) {
        if (tile < task.endTile) {
          const Pieces pieces = near ? nearPieces(task, tile) : pages.take(a, task, tile);
          const int stage = tiles & 1;
          barrierWait(sharedAddress(&shared.empty[stage]), (tiles >> 1 & 1) ^ 1);
          if (threadIdx.x % 32 == 0) fetchTile(pieces, stage);
          STAMP(min(10 + tiles, 25));
          tiles++;
        }
        if (!asked) {
          tell(task);
          if (threadIdx.x % 32 == 0) fetchQueries(task.sequence);
        }
        __syncwarp();
        asked = true;
      }
      if (WHOLE_BARRIERS) {
        for (int i = 0; i < 2; i++) {
          clusterArrive();
          clusterWait();
        }
      }
    }

    /**
     * Lengths and tables are read while the launches before this one may still write queries and the last cache entries; what others
     * write follows from what is fetched here. A block without work ends at once, unless no block has any: then this launch must
     * not end before the earlier ones.
     */
    __device__ __forceinline__ void run() {
      Task task;
      Share share = Share::uneven;
      if (a.splitTiles == 0 && a.batch <= min(a.groups, MOST_EVEN)) share = shareEvenly(a, place, task);
      STAMP(1);
      if (isNear(a)) meet(TABLE_THERE, THREADS);
      STAMP(2);
      if (share == Share::one) work(task);
      else if (share == Share::uneven) walk();
      else if (place.group == 0) waitForEarlier();
      if (tasks > 0) return;
      task.sequence = -1;
      tell(task);
    }

    /** Tasks in turn: several sequences, or parts of them. */
    __device__ __forceinline__ void walk() {
      Schedule& schedule = shared.schedule;
      buildSchedule(a, schedule);
      __syncwarp();
      Cursor cursor = openCursor(a, schedule, place);
      if (schedule.prefix[a.batch] == 0) waitForEarlier();
      Task task;
      while (nextItem(a, schedule, cursor, task)) {
        task.slotStep = a.splitTiles > 0 ? 1 : 2;
        task.firstSlot = a.splitTiles > 0 ? schedule.prefix[task.sequence] : 2 * (cursor.group - task.split);
        task.last = cursor.unit >= cursor.end;
        work(task);
      }
    }
  };

  /** Half of the channels' part of the tile's scores, into shared memory as [row][token]. */
  static __device__ __forceinline__ void score(Shared& shared, int group, int stage, int parity) {
    constexpr int MIDDLE = BOXES / 2;
    const uint32_t full = sharedAddress(&shared.full[stage][0]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, first = group * (BOXES - 1), step = 1 - 2 * group;
    const uint32_t keys = sharedAddress(shared.stages[stage]), queries = sharedAddress(shared.queries);
    float s[N / 2];
#pragma unroll
    for (int i = 0; i <= MIDDLE; i++) {
      const int box = first + i * step;
      if (i % GROUP == 0) barrierWait(full + (COPIES == 1 ? 0 : i == 0 ? group * (COPIES - 1) : 1) * 8, parity);
      if (i == 0) warpgroupArrive();
#pragma unroll
      for (int k = 0; k < (i < MIDDLE ? 4 : 2); k++) {
        const int part = i < MIDDLE ? k : group * 2 + k;
        const uint64_t key = describe(keys + box * BOX_BYTES + part * 32), query = describe(queries + box * N * 128 + part * 32);
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

  static __device__ __forceinline__ void storeTokens(uint32_t target, const uint32_t (&pairs)[TOKENS / 2]) {
    if constexpr (TOKENS == 8) {
      storeShared16(target, make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
    } else if constexpr (TOKENS == 4) {
      asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(target), "r"(pairs[0]), "r"(pairs[1]) : "memory");
    } else {
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(target), "r"(pairs[0]) : "memory");
    }
  }

  /** One row's part of the softmax, of which it sees `visible` tokens; probabilities go to shared memory. Returns whether its maximum moves. */
  static __device__ __forceinline__ bool softmax(Shared& shared, float scale, int visible, float& top, float& sum) {
    const int row = threadIdx.x / LANES, token = threadIdx.x % LANES * TOKENS;
    const float2* first = reinterpret_cast<const float2*>(shared.scores[0] + row * PITCH + token);
    const float2* second = reinterpret_cast<const float2*>(shared.scores[1] + row * PITCH + token);
    float s[TOKENS], most = NEGATIVE_INFINITY;
#pragma unroll
    for (int i = 0; i < TOKENS; i += 2) {
      float2 x, y;
      if (TOKENS % 4 == 0) {
        const float4 u = reinterpret_cast<const float4*>(first)[i / 4], v = reinterpret_cast<const float4*>(second)[i / 4];
        x = i % 4 == 0 ? make_float2(u.x, u.y) : make_float2(u.z, u.w);
        y = i % 4 == 0 ? make_float2(v.x, v.y) : make_float2(v.z, v.w);
      } else {
        x = first[i / 2];
        y = second[i / 2];
      }
      s[i] = token + i < visible ? (x.x + y.x) * scale : NEGATIVE_INFINITY;
      s[i + 1] = token + i + 1 < visible ? (x.y + y.y) * scale : NEGATIVE_INFINITY;
      most = fmaxf(most, fmaxf(s[i], s[i + 1]));
    }
#pragma unroll
    for (int step = 1; step < LANES; step *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    const bool rises = most > top + LAZY;
    const float next = rises ? most : top, base = next == NEGATIVE_INFINITY ? 0.f : next;
    const float factor = rises ? exp2Fast(top - base) : 1.f;
    top = next;
    sum *= factor;
    uint32_t pairs[TOKENS / 2], remainders[TOKENS / 2];
#pragma unroll
    for (int i = 0; i < TOKENS; i += 2) {
      const float low = exp2Fast(s[i] - base), high = exp2Fast(s[i + 1] - base);
      sum += low + high;
      if constexpr (TERMS == 2) {
        // The first term is cut off, not rounded: its remainder is exact all the same.
        const uint32_t x = __float_as_uint(low), y = __float_as_uint(high);
        pairs[i / 2] = __byte_perm(x, y, 0x7632);
        remainders[i / 2] = pack<T>(low - __uint_as_float(x & 0xffff0000u), high - __uint_as_float(y & 0xffff0000u));
      } else {
        pairs[i / 2] = pack<T>(low, high);
      }
    }
    const uint32_t target = swizzled(sharedAddress(shared.probabilities), row, token / 8) + token % 8 * 2;
    storeTokens(target, pairs);
    if constexpr (TERMS == 2) storeTokens(target + N * 128, remainders);
    if (threadIdx.x % LANES == 0) shared.factors[row] = factor;
    return rises;
  }

  /** Multiplies outputs by their rows' factors. */
  static __device__ __forceinline__ void rescale(const Shared& shared, float (&out)[HALF_BOXES][COLUMNS / 2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
      const float low = shared.factors[j * 8 + lane % 4 * 2], high = shared.factors[j * 8 + lane % 4 * 2 + 1];
#pragma unroll
      for (int box = 0; box < HALF_BOXES; box++) {
#pragma unroll
        for (int at = j * 4; at < COLUMNS / 2; at += N / 2) {
          out[box][at] *= low;
          out[box][at + 1] *= high;
          out[box][at + 2] *= low;
          out[box][at + 3] *= high;
        }
      }
    }
  }

  /** Adds the sums of the probabilities' second terms to those of the first. */
  static __device__ __forceinline__ void joinTerms(const float (&terms)[HALF_BOXES][COLUMNS / 2], float (&out)[HALF_BOXES][N / 2]) {
#pragma unroll
    for (int box = 0; box < HALF_BOXES; box++) {
#pragma unroll
      for (int i = 0; i < N / 2; i++) out[box][i] = TERMS == 2 ? terms[box][i] + terms[box][COLUMNS / 2 - N / 2 + i] : terms[box][i];
    }
  }

  /** Starts out += values · probabilities for half of the latent width. */
  static __device__ __forceinline__ void accumulate(Shared& shared, int group, int stage, float (&out)[HALF_BOXES][COLUMNS / 2]) {
    const uint32_t values = sharedAddress(shared.stages[stage]) + group * HALF_BOXES * BOX_BYTES;
    const uint32_t p = sharedAddress(shared.probabilities);
#pragma unroll
    for (int box = 0; box < HALF_BOXES; box++) pin(out[box]);
    warpgroupArrive();
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int box = 0; box < HALF_BOXES; box++) {
        Wgmma<T, COLUMNS, 1, 0>::run(out[box], describe(values + box * BOX_BYTES + k * 2048), describe(p + k * 32));
      }
    }
    warpgroupCommit();
  }

  /** The exponent of the power of two that brings values up to `largest` near 2^14: f16 keeps 11 bits of what is 2^-28 times that, and more. */
  static __device__ __forceinline__ uint32_t exponentFor(float largest) {
    return max(1, min(254, static_cast<int>(__float_as_uint(largest) >> 23) - 14));
  }

  /** The rows' results, divided by their sums, to the messages at `results`, of which there are `size`. */
  static __device__ __forceinline__ void publish(const Shared& shared, uint32_t results, const Message& message, int size, int group,
                                                 const float (&out)[HALF_BOXES][N / 2]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    // Matrices: channels 0–7 and 8–15 of 8 rows, then of the next 8.
    const uint32_t target = results + (lane % 8 + (N > 8 ? lane / 16 * 8 : 0)) * message.pitch + lane / 8 % 2 * 16;
    float largest = 0.f, inverse[N / 8][2];
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
      const float4 pair = *reinterpret_cast<const float4*>(&shared.stats[j * 8 + lane % 4 * 2]);
      float most[2] = {0.f, 0.f};
#pragma unroll
      for (int box = 0; box < HALF_BOXES; box++) {
#pragma unroll
        for (int i = 0; i < 4; i++) most[i % 2] = fmaxf(most[i % 2], fabsf(out[box][j * 4 + i]));
      }
      inverse[j][0] = pair.y > 0.f ? __fdividef(1.f, pair.y) : 0.f;
      inverse[j][1] = pair.w > 0.f ? __fdividef(1.f, pair.w) : 0.f;
      largest = fmaxf(largest, fmaxf(most[0] * inverse[j][0], most[1] * inverse[j][1]));
    }
    const uint32_t exponent = exponentFor(__uint_as_float(__reduce_max_sync(~0u, __float_as_uint(largest))));
    if (lane < size) storeShared1(results + message.exponentAt(lane, group * 4 + warp), exponent);
    const float scale = __uint_as_float((254 - exponent) << 23);
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
      inverse[j][0] *= scale;
      inverse[j][1] *= scale;
    }
#pragma unroll
    for (int box = 0; box < HALF_BOXES; box++) {
      const uint32_t place = target + message.at(0, (group * HALF_BOXES + box) * 64 + warp * 16);
      uint32_t words[N / 8][2];
#pragma unroll
      for (int j = 0; j < N / 8; j++) {
        words[j][0] = pack<f16>(out[box][j * 4] * inverse[j][0], out[box][j * 4 + 1] * inverse[j][1]);
        words[j][1] = pack<f16>(out[box][j * 4 + 2] * inverse[j][0], out[box][j * 4 + 3] * inverse[j][1]);
      }
      if constexpr (N == 8) {
        storeMatricesTransposed(place, words[0][0], words[0][1]);
      } else {
#pragma unroll
        for (int j = 0; j < N / 8; j += 2) {
          storeMatricesTransposed(place + j * 8 * message.pitch, words[j][0], words[j][1], words[j + 1][0], words[j + 1][1]);
        }
      }
    }
  }

  /** Lets every block of the cluster have its message, and waits for the others'. */
  static __device__ __forceinline__ void exchange(Shared& shared, const Place& place, const Message& message, bool any, int active,
                                                  int tasks) {
    const uint32_t published = sharedAddress(&shared.published);
    const int thread = threadIdx.x;
    if (WHOLE_BARRIERS) {
      clusterArrive();
      clusterWait();
      return;
    }
    if (PULLS) {
      if (thread < place.size) barrierArriveAt(published, thread);
    } else {
      // Its own message stays where it is.
      if (thread == 0) barrierExpect(published, (active - (any ? 1 : 0)) * message.bytes);
      if (any && thread < place.size && thread != place.rank) {
        sendShared(remoteAddress(sharedAddress(shared.inbox) + place.rank * message.bytes, thread),
                   resultsOf(shared) + thread * message.bytes, message.bytes, remoteAddress(published, thread));
      }
    }
    barrierWaitCluster(published, tasks & 1);
  }

  /** What a warp merges in one go: 4 columns a lane of this rank's. */
  template <int SIZE> struct Columns {
    static constexpr int QUADS = D_C / SIZE / 4;
    int row, column;
    bool is, first;

    __device__ __forceinline__ Columns(const Place& place, int i, int rows) {
      is = i < rows * QUADS;
      row = min(i / QUADS, rows - 1);
      column = (place.rank * QUADS + i % QUADS) * 4;
      first = place.rank == 0 && i % QUADS == 0;
    }
  };

  /** This rank's columns of the cluster's result: the output, or this split's part of it. The first `active` blocks have results. */
  template <int SIZE>
  static __device__ __forceinline__ void finish(const Arguments& a, Shared& shared, const Place& place, const Task& task, int active,
                                                int rows) {
    constexpr int QUADS = Columns<SIZE>::QUADS;
    const int lane = threadIdx.x % 32;
    const Message message(SIZE);
    // Where block r's message for this one lies.
    auto messageOf = [&](int r) -> uint32_t {
      if (SIZE == 1) return resultsOf(shared);
      const int rank = min(r, active - 1);
      if (!PULLS) return rank == place.rank ? resultsOf(shared) + rank * message.bytes : sharedAddress(shared.inbox) + rank * message.bytes;
      return remoteAddress(resultsOf(shared) + place.rank * message.bytes, min(r, active - 1));
    };
    auto load = [&](uint32_t address) -> uint2 { return PULLS && SIZE > 1 ? loadCluster8(address) : loadShared8(address); };
    uint32_t from[SIZE];
#pragma unroll
    for (int r = 0; r < SIZE; r++) from[r] = messageOf(r);
    const uint32_t stats = messageOf(lane % SIZE) + message.statsAt(0, 0);
    // The warp that had this thread's columns, and the powers of two of it in all blocks.
    const int firstColumn = (SIZE == 1 ? 0 : place.rank) * QUADS * 4 + threadIdx.x % QUADS * 4;
    const int source = firstColumn / (HALF_BOXES * 64) * 4 + firstColumn % 64 / 16;
    const uint32_t place4 = messageOf(lane % SIZE) + message.exponentAt(0, source / 4 * 4);
    const uint32_t exponents = PULLS && SIZE > 1 ? loadCluster4(place4) : loadShared4(place4);
    float scales[SIZE] = {};
    const Partial<N, D_C> partial(a, place, slotOfSplit(task, task.split));
    constexpr int PARTS = (N * QUADS + CONSUMERS - 1) / CONSUMERS, AT_ONCE = PARTS < 4 ? PARTS : 4;
    for (int part = 0; part < PARTS; part += AT_ONCE) {
      Merged merged[AT_ONCE];
#pragma unroll
      for (int j = 0; j < AT_ONCE; j++) {
        const int i = threadIdx.x + (part + j) * CONSUMERS;
        const Columns<SIZE> at(place, i, rows);
        const uint2 stat = load(stats + at.row * message.pitch);
        uint2 value[SIZE];
#pragma unroll
        for (int r = 0; r < SIZE; r++) value[r] = load(from[r] + at.row * message.pitch + i % QUADS * 8);
        // Behind the loads, which would wait for what they are made from.
        if (part == 0 && j == 0) {
#pragma unroll
          for (int r = 0; r < SIZE; r++) {
            const uint32_t word = SIZE == 1 ? exponents : __shfl_sync(~0u, exponents, r, SIZE);
            scales[r] = __uint_as_float((word >> (source % 4 * 8) & 255) << 23);
          }
        }
        float top = __uint_as_float(stat.x);
#pragma unroll
        for (int step = 1; step < SIZE; step *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
        const float base = top == NEGATIVE_INFINITY ? 0.f : top;
        const float weight = lane % SIZE < active ? exp2Fast(__uint_as_float(stat.x) - base) * __uint_as_float(stat.y) : 0.f;
        float sum = weight;
#pragma unroll
        for (int step = 1; step < SIZE; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
        merged[j] = {make_float4(0.f, 0.f, 0.f, 0.f), top, sum};
#pragma unroll
        for (int r = 0; r < SIZE; r++) {
          const float w = SIZE == 1 ? weight : __shfl_sync(~0u, weight, r, SIZE);
          const float2 low = unpack<f16>(value[r].x), high = unpack<f16>(value[r].y);
          addWeighted(merged[j].value, w * scales[r], make_float4(low.x, low.y, high.x, high.y));
        }
      }
      // All that was sent is in registers: said before anything goes to memory, for which the arrival would wait.
      if (SIZE > 1 && part + AT_ONCE == PARTS) {
        __syncwarp();
        if (lane < SIZE) barrierArriveRelaxedAt(sharedAddress(&shared.consumed), lane);
      }
#pragma unroll
      for (int j = 0; j < AT_ONCE; j++) {
        const int i = threadIdx.x + (part + j) * CONSUMERS;
        const Columns<SIZE> at(place, i, rows);
        if (!at.is) continue;
        if (task.splits == 1) {
          const size_t target = static_cast<size_t>(task.sequence) * a.rows + place.rowBlock * N + at.row;
          writeRow<T>(a, target, D_C, at.column, merged[j], at.first);
        } else {
          __stcg(reinterpret_cast<float4*>(partial.values + at.row * D_C + at.column), merged[j].value);
          if (i % QUADS == 0) __stcg(partial.stats + at.row, make_float2(merged[j].top, merged[j].sum));
        }
      }
    }
  }

  /** Merges what this warp's lanes finished with the other splits, if they have all arrived, in the order of the splits. */
  template <int SIZE>
  static __device__ __forceinline__ void mergeWarp(const Arguments& a, const Place& place, const Task& task, int rows) {
    constexpr int QUADS = Columns<SIZE>::QUADS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncwarp();
    unsigned before = 0;
    if (lane == 0) {
      unsigned* counter = a.counters + ((task.sequence * a.rowBlocks + place.rowBlock) * SIZE + place.rank) * (CONSUMERS / 32) + warp;
      before = incrementOrdered(counter, task.splits - 1);
    }
    if (__shfl_sync(~0u, before, 0) != task.splits - 1) return;
    STAMP(13);
    const size_t slotValues = static_cast<size_t>(a.rowBlocks) * N * D_C, slotStats = static_cast<size_t>(a.rowBlocks) * SIZE * N;
    for (int i = threadIdx.x; i - lane < rows * QUADS; i += CONSUMERS) {
      const Columns<SIZE> at(place, i, rows);
      const float* values = a.scratch + static_cast<size_t>(place.rowBlock) * N * D_C + at.row * D_C + at.column;
      const float2* stats = reinterpret_cast<const float2*>(a.scratch + a.statsOffset) + (place.rowBlock * SIZE + place.rank) * N + at.row;
      Merged merged = {make_float4(0.f, 0.f, 0.f, 0.f), NEGATIVE_INFINITY, 0.f};
      for (int first = 0; first < task.splits; first += MERGED_AT_ONCE) {
        // All loads of a round are under way before the first is used: one latency, not one for each split.
        float2 stat[MERGED_AT_ONCE];
        float4 value[MERGED_AT_ONCE];
#pragma unroll
        for (int s = 0; s < MERGED_AT_ONCE; s++) {
          const int slot = slotOfSplit(task, min(first + s, task.splits - 1));
          stat[s] = __ldcg(stats + slot * slotStats);
          value[s] = __ldcg(reinterpret_cast<const float4*>(values + slot * slotValues));
        }
        addSplits(merged, stat, value, task.splits - first);
      }
      if (at.is) {
        const size_t target = static_cast<size_t>(task.sequence) * a.rows + place.rowBlock * N + at.row;
        writeRow<T>(a, target, D_C, at.column, merged, at.first);
      }
    }
  }

  /** Reads what the cluster's blocks have published, says so, and merges with other clusters. */
  template <int SIZE>
  static __device__ __forceinline__ void conclude(const Arguments& a, Shared& shared, const Place& place, const Task& task) {
    const int rows = min(N, a.rows - place.rowBlock * N);
    finish<SIZE>(a, shared, place, task, min(SIZE, task.endTile - task.firstTile), rows);
    STAMP(11);
    if (task.splits > 1) mergeWarp<SIZE>(a, place, task, rows);
  }

  static __device__ void consume(const Arguments& a, Shared& shared, const Place& place) {
    const int thread = threadIdx.x, group = uniform(thread / 128), lane = thread % 32;
    const float scale = a.softmaxScale * LOG2_E;
    const Message message(place.size);
    int n = 0;
    for (int tasks = 0;; tasks++) {
      barrierWait(sharedAddress(&shared.taskKnown), tasks & 1);
      Task task;
      task.copy(shared.task);
      if (task.sequence < 0) return;
      STAMP(1);
      float top = NEGATIVE_INFINITY, sum = 0.f, out[HALF_BOXES][COLUMNS / 2] = {};
      const int visible = visibleTokens(a, task, place.rowBlock * N + thread / LANES);
      barrierWait(sharedAddress(&shared.queriesFull), tasks & 1);
      STAMP(2);
      const int start = task.firstTile + place.rank;
      for (int tile = start; tile < task.endTile; tile += place.size, n++) {
        const int stage = n & 1;
        score(shared, group, stage, n >> 1 & 1);
        STAMP(tile == start ? 3 : 16);
        meet(ALL_CONSUMERS, CONSUMERS);
        const bool rises = softmax(shared, scale, visible - tile * TILE, top, sum);
        const int clearFrom = task.length - tile * TILE;
        if (clearFrom < TILE) {
          const uint32_t half = sharedAddress(shared.stages[stage]) + group * HALF_BOXES * BOX_BYTES;
          clearRows(half, HALF_BOXES, max(0, clearFrom), thread % 128);
        }
        fenceForAsync();
        STAMP(tile == start ? 4 : 17);
        if (tile == start) meet(ALL_CONSUMERS, CONSUMERS);
        else if (anyOf(ALL_CONSUMERS, CONSUMERS, rises)) rescale(shared, out);
        STAMP(tile == start ? 5 : 18);
        accumulate(shared, group, stage, out);
        if (tile + place.size >= task.endTile) {
          float whole = sum;
#pragma unroll
          for (int step = 1; step < LANES; step *= 2) whole += __shfl_xor_sync(~0u, whole, step);
          const int row = thread / LANES, rank = thread % LANES;
          if (rank == 0) shared.stats[row] = make_float2(top, whole);
          if (rank < place.size) storeShared8(resultsOf(shared) + message.statsAt(rank, row), make_float2(top, whole));
        }
        warpgroupWait<0>();
#pragma unroll
        for (int box = 0; box < HALF_BOXES; box++) pin(out[box]);
        if (lane == 0) barrierArrive(sharedAddress(&shared.empty[stage]));
        STAMP(tile == start ? 6 : 19);
      }
      // Both warpgroups are through with the scores and have their sums in place.
      meet(ALL_CONSUMERS, CONSUMERS);
      if (!REPLACES_QUERIES && lane == 0) barrierArrive(sharedAddress(&shared.queriesFree));
      STAMP(7);
      const bool any = start < task.endTile;
      if (any) {
        float results[HALF_BOXES][N / 2];
        joinTerms(out, results);
        publish(shared, resultsOf(shared), message, place.size, group, results);
      }
      if (!PULLS) fenceForAsync();
      meet(ALL_CONSUMERS, CONSUMERS);
      STAMP(8);
      if (place.size > 1 || WHOLE_BARRIERS) {
        exchange(shared, place, message, any, min(place.size, task.endTile - task.firstTile), tasks);
      }
      STAMP(10);
      if (place.size == 8) conclude<8>(a, shared, place, task);
      else if (place.size == 4) conclude<4>(a, shared, place, task);
      else if (place.size == 2) conclude<2>(a, shared, place, task);
      else conclude<1>(a, shared, place, task);
      STAMP(14);
      // Others may still read this block's results, which the next ones overwrite.
      if (WHOLE_BARRIERS) {
        clusterArrive();
        clusterWait();
      } else if (place.size > 1) {
        barrierWaitCluster(sharedAddress(&shared.consumed), tasks & 1);
      }
      if (REPLACES_QUERIES) {
        fenceForAsync();
        __syncwarp();
        if (lane == 0) barrierArrive(sharedAddress(&shared.queriesFree));
      }
      STAMP(15);
      if (task.last) return;
    }
  }

  static __device__ void run(const Arguments& a, const CUtensorMap* map, const CUtensorMap* queryMap) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    letNextBegin();
    STAMP(0);
    const Place place = placeOfCluster(a);
    const int warp = uniform(threadIdx.x / 32);
    if (threadIdx.x == CONSUMERS) {
      prefetchMap(map);
      prefetchMap(queryMap);
      for (int stage = 0; stage < 2; stage++) {
        for (int i = 0; i < COPIES; i++) barrierInit(sharedAddress(&shared.full[stage][i]), 1);
        barrierInit(sharedAddress(&shared.empty[stage]), CONSUMERS / 32);
      }
      barrierInit(sharedAddress(&shared.taskKnown), 1);
      barrierInit(sharedAddress(&shared.queriesFull), 1);
      barrierInit(sharedAddress(&shared.queriesFree), CONSUMERS / 32);
      barrierInit(sharedAddress(&shared.published), PULLS ? place.size : 1);
      barrierInit(sharedAddress(&shared.consumed), place.size * (CONSUMERS / 32));
      barrierInitFence();
    }
    touchParameters(a, warp);
    __syncthreads();
    const bool isCluster = place.size > 1 || WHOLE_BARRIERS;
    if (isCluster) clusterArrive();
    if (warp == CONSUMERS / 32) {
      if (WHOLE_BARRIERS) clusterWait();
      Producer{a, map, queryMap, shared, place, 0, 0}.run();
      if (isCluster && !WHOLE_BARRIERS) clusterWait();
    } else {
      fetchTable(a, shared);
      if (isCluster) clusterWait();
      consume(a, shared, place);
    }
  }
};

}  // namespace flashmla

#define FEW_ROWS(T, WIDTHS, N, ...)                                                                                    \
  extern "C" __global__ void __launch_bounds__(flashmla::THREADS, 1) mlaDecodeFewRows_##T##_##WIDTHS##_##N(            \
      const __grid_constant__ CUtensorMap map, const __grid_constant__ CUtensorMap queryMap, const void* q,            \
      const void* cache, const int* table, const int* lengths, const int* batchCount, void* out, float* lse,           \
      float* scratch, unsigned* counters, int batch, int rows, int heads, int sQ, int pageSize, int tableWidth,        \
      int causal, int groups, int rowBlocks, int splitTiles, int leastTiles, int statsOffset, int counted,             \
      int outFloat, float softmaxScale) {                                                                              \
    flashmla::FewRows<flashmla::T, __VA_ARGS__>::run(                                                                  \
        {q, cache, table, lengths, batchCount, out, lse, scratch, counters, batch, rows, heads, sQ, pageSize,          \
         tableWidth, causal, groups, rowBlocks, splitTiles, leastTiles, statsOffset, counted, outFloat, softmaxScale}, \
        &map, &queryMap);                                                                                              \
  }

#define WIDE(T)                      \
  FEW_ROWS(T, 512, 8, 512, 8)     \
  FEW_ROWS(T, 512, 16, 512, 16)   \
  FEW_ROWS(T, 512, 32, 512, 32)

#define NARROW(T)                          \
  FEW_ROWS(T, 256, 16, 256, 16)         \
  FEW_ROWS(T, 256, 32, 256, 32)         \
  FEW_ROWS(T, 256_32, 16, 256, 16, true)   \
  FEW_ROWS(T, 256_32, 32, 256, 32, true)

WIDE(bf16)
#ifndef ONE_BUILD
WIDE(f16)
NARROW(bf16)
NARROW(f16)
#endif
