// Programmatic dependent launch: kernels of a stream that begin before the ones before them end (Hopper; nothing elsewhere).
#pragma once

namespace flashmla {

/** Waits for the launches before this one, where it may have begun before their end; see {@link letNextBegin}. */
__device__ __forceinline__ void waitForEarlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/** Lets the next launch begin, once every block came here or ended: it still waits for this one's results. */
__device__ __forceinline__ void letNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace flashmla
