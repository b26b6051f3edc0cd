import type { CudaMatmul, KernelSource } from "../device.ts";
import type { CudaLaunch } from "./launch-arena.ts";

/** A product by cuBLASLt with the addresses of its buffers. */
export interface MatmulLaunch {
  readonly source: KernelSource;
  readonly matmul: CudaMatmul;
  /** Device addresses of x, weight and out. */
  readonly addresses: readonly bigint[];
}

/** One launch of a program. */
export type Work = CudaLaunch | MatmulLaunch;

/** Whether `work` is a product by cuBLASLt. */
export function isMatmul(work: Work): work is MatmulLaunch {
  return "matmul" in work;
}
