// Hopper's barriers, bulk copies, clusters and warpgroup fences as functions.
#pragma once
#include <cuda.h>
#ifdef WAIT_LIMIT
#include <stdio.h>
#endif
#include "overlap.cuh"
#include "wgmma.cuh"

namespace flashmla {

/** Bytes of one box: 64 rows of 64 16-bit values, 128-byte swizzle. */
constexpr int BOX_BYTES = 64 * 128;

// Clock readings, where a build asks for them -------------------------------------------------------------------------

#ifdef STAMPS
/** [block][warpgroup][place in the code]. */
extern "C" __device__ long long stamps[264][3][32];
#define STAMP(at) \
  if (threadIdx.x % 128 == 0) stamps[blockIdx.x][threadIdx.x / 128][at] = clock64()
#else
#define STAMP(at)
#endif

#ifdef WAIT_LIMIT
/** Says which barrier a build with a limit to its waiting waited for in vain. */
__device__ __noinline__ void giveUp(uint32_t barrier, int parity) {
  if (threadIdx.x % 32 == 0) printf("block %d warp %d waited too long: barrier %x, parity %d\n", blockIdx.x, threadIdx.x / 32, barrier, parity);
  for (const long long start = clock64(); clock64() - start < WAIT_LIMIT / 2;) {
  }
  __trap();
}
#endif

// Barriers in shared memory -------------------------------------------------------------------------------------------

__device__ __forceinline__ void barrierInit(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/** Makes initialised barriers visible to the copy engine and to the cluster. */
__device__ __forceinline__ void barrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void barrierExpect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/** Arrives at the same barrier of the cluster's block `rank`, without ordering this thread's writes before it: that would take longer. */
__device__ __forceinline__ void barrierArriveRelaxedAt(uint32_t barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(barrier), "r"(rank) : "memory");
}

/**
 * Arrivals of a warp at a barrier that its lane 0 arrives at for all, after a barrier of the warp. compute-sanitizer's racecheck holds such an arrival
 * for that lane's alone, so in builds for it every lane arrives.
 */
#ifdef SANITIZED
constexpr int WARP_ARRIVALS = 32;
#else
constexpr int WARP_ARRIVALS = 1;
#endif

/** Whether this lane arrives, where its warp does. */
__device__ __forceinline__ bool arrivesForWarp() { return WARP_ARRIVALS == 32 || threadIdx.x % 32 == 0; }

/** Arrives at the same barrier of the cluster's block `rank`; what this thread has seen written comes before it. */
__device__ __forceinline__ void barrierArriveAt(uint32_t barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(barrier), "r"(rank) : "memory");
}

/** Waits for the phase of that parity to complete. */
__device__ __forceinline__ void barrierWait(uint32_t barrier, int parity) {
#ifdef WAIT_LIMIT
  const long long start = clock64();
  for (int done = 0; !done;) {
    asm volatile("{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.s32 %0, 1, 0, done;\n}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    if (clock64() - start > WAIT_LIMIT) giveUp(barrier, parity);
  }
  return;
#endif
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}" ::"r"(barrier), "r"(parity) : "memory");
}

/** Whether that phase has completed. */
__device__ __forceinline__ bool barrierTest(uint32_t barrier, int parity) {
  int done;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.s32 %0, 1, 0, done;\n"
      "}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

/** The same, seeing what other blocks of the cluster wrote before they arrived. */
__device__ __forceinline__ void barrierWaitCluster(uint32_t barrier, int parity) {
#ifdef WAIT_LIMIT
  const long long start = clock64();
  for (int done = 0; !done;) {
    asm volatile("{\n.reg .pred done;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%1], %2;\nselp.s32 %0, 1, 0, done;\n}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    if (clock64() - start > WAIT_LIMIT) giveUp(barrier, parity);
  }
  return;
#endif
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}" ::"r"(barrier), "r"(parity) : "memory");
}

/** Meets `threads` threads at one of the 16 named barriers (0 is __syncthreads). */
__device__ __forceinline__ void meet(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

/** Whether `value` holds in any of the `threads` threads that meet at a named barrier. */
__device__ __forceinline__ bool anyOf(int name, int threads, bool value) {
  int any;
  asm volatile(
      "{\n"
      ".reg .pred mine, all;\n"
      "setp.ne.s32 mine, %1, 0;\n"
      "barrier.cta.red.or.pred all, %2, %3, mine;\n"
      "selp.s32 %0, 1, 0, all;\n"
      "}"
      : "=r"(any)
      : "r"(static_cast<int>(value)), "r"(name), "r"(threads)
      : "memory");
  return any != 0;
}

/** One thread's fence, after a barrier of the block, orders what all of the block's threads wrote before what others read later. */
__device__ __forceinline__ void fenceDevice() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

/** Adds 1 to a counter, which goes from `last` to 0, after what this thread has seen written, and before what it reads; its old value. */
__device__ __forceinline__ unsigned incrementOrdered(unsigned* counter, unsigned last) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(last) : "memory");
  return before;
}

/** Reads a counter, and sees what was written before it got its value. */
__device__ __forceinline__ unsigned loadAcquire(const unsigned* counter) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

/** Arrives at a named barrier without waiting. */
__device__ __forceinline__ void announce(int name, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// Copies --------------------------------------------------------------------------------------------------------------

/** Fetches the box at (column, row) of the mapped matrix; `barrier` counts its bytes. */
__device__ __forceinline__ void copyBox(uint32_t target, const CUtensorMap* map, int column, int row, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                   target),
               "l"(map), "r"(column), "r"(row), "r"(barrier)
               : "memory");
}

/** Fetches the boxes of a map of three dimensions from (row, `box`) on; `barrier` counts their bytes. */
__device__ __forceinline__ void copyBoxes(uint32_t target, const CUtensorMap* map, int row, int box, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(
                   target),
               "l"(map), "r"(0), "r"(row), "r"(box), "r"(barrier)
               : "memory");
}

/** Calls what {@link copyBox} would fetch into the second-level cache. */
__device__ __forceinline__ void prefetchBox(const CUtensorMap* map, int column, int row) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(map), "r"(column), "r"(row) : "memory");
}

/** {@link copyBox} for both blocks of a cluster of two, at the same places of their shared memory. */
__device__ __forceinline__ void copyBoxToPair(uint32_t target, const CUtensorMap* map, int column, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], "
      "[%4], %5;" ::"r"(target),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(static_cast<uint16_t>(3))
      : "memory");
}

__device__ __forceinline__ void prefetchMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/** Orders this thread's stores to shared memory before the tensor cores' and the copy engine's accesses. */
__device__ __forceinline__ void fenceForAsync() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/** Address of 16-byte unit `chunk` of row `row` in a box whose rows are 128 bytes, swizzled. */
__device__ __forceinline__ uint32_t swizzled(uint32_t box, int row, int chunk) {
  return box + row * 128 + ((chunk ^ (row & 7)) << 4);
}

__device__ __forceinline__ void storeShared16(uint32_t address, uint4 value) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

__device__ __forceinline__ void storeShared8(uint32_t address, float2 value) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(value.x), "f"(value.y) : "memory");
}

__device__ __forceinline__ uint2 loadShared8(uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address) : "memory");
  return v;
}

__device__ __forceinline__ void storeShared1(uint32_t address, uint32_t byte) {
  asm volatile("st.shared.u8 [%0], %1;" ::"r"(address), "r"(byte) : "memory");
}

__device__ __forceinline__ uint32_t loadShared4(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}

// Clusters ------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ int clusterRank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ __forceinline__ int clusterSize() {
  int size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

__device__ __forceinline__ void clusterArrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }

/** The same, without ordering what this thread has written before it. */
__device__ __forceinline__ void clusterArriveRelaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }

__device__ __forceinline__ void clusterWait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

/** The address of `address` in the shared memory of the cluster's block `rank`. */
__device__ __forceinline__ uint32_t remoteAddress(uint32_t address, int rank) {
  uint32_t remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  return remote;
}

/** 8 bytes at a cluster address. */
__device__ __forceinline__ uint2 loadCluster8(uint32_t address) {
  uint2 v;
  asm volatile("ld.shared::cluster.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address) : "memory");
  return v;
}

/** 4 bytes at a cluster address. */
__device__ __forceinline__ uint32_t loadCluster4(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}

/** Copies `bytes` of this block's shared memory to a cluster address, where `barrier`, of the same block, counts them. */
__device__ __forceinline__ void sendShared(uint32_t target, uint32_t source, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
               "r"(source), "r"(bytes), "r"(barrier)
               : "memory");
}

// Warpgroups ----------------------------------------------------------------------------------------------------------

/** Descriptor of an operand in boxes with 128-byte swizzle; `groupBytes` from one 64-wide group to the next where transposed. */
__device__ __forceinline__ uint64_t describe(uint32_t address, uint32_t groupBytes = 16) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(groupBytes >> 4) << 16 |
         static_cast<uint64_t>(1024 >> 4) << 32 | 1ull << 62;
}

__device__ __forceinline__ void warpgroupArrive() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void warpgroupCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int pending> __device__ __forceinline__ void warpgroupWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/** A value that is the same in all lanes of the warp, so that the compiler knows it. */
__device__ __forceinline__ int uniform(int value) { return __shfl_sync(~0u, value, 0); }

/** Lowers this warpgroup's registers a thread. */
template <int count> __device__ __forceinline__ void giveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

/** Raises them. */
template <int count> __device__ __forceinline__ void takeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

/** Keeps the compiler from moving accesses of `values` across this point. */
template <int length> __device__ __forceinline__ void pin(float (&values)[length]) {
#pragma unroll
  for (int i = 0; i < length; i++) asm volatile("" : "+f"(values[i])::"memory");
}

__device__ __forceinline__ uint4 loadShared16(uint32_t address) {
  uint4 value;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address)
               : "memory");
  return value;
}

/** Stores two 8×8 matrices of 16-bit values, transposed; lanes 0–15 give the rows' addresses. */
__device__ __forceinline__ void storeMatricesTransposed(uint32_t address, uint32_t a, uint32_t b) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address), "r"(a), "r"(b) : "memory");
}

/** Stores four 8×8 matrices of 16-bit values, transposed; lane l gives the address of row l % 8 of matrix l / 8 as stored. */
__device__ __forceinline__ void storeMatricesTransposed(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b), "r"(c),
               "r"(d)
               : "memory");
}

/** Stores four 8×8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ __forceinline__ void storeMatrices(uint32_t address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}

}  // namespace flashmla
