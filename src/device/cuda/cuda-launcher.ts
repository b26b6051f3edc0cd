import { UserError } from "../../base/errors.ts";
import type { CudaEntry, KernelSource } from "../device.ts";
import { CublasLt } from "./cublas.ts";
import { openCublasLibrary } from "./cublas-library.ts";
import { type CudaDriver, CudaError } from "./driver.ts";
import type { Gpu } from "./gpu.ts";
import { LaunchArena, type MemoryRange, type SharedMemory } from "./launch-arena.ts";
import { CudaModules } from "./modules.ts";
import { isMatmul, type Work } from "./work.ts";

/** From launches to calls of the driver and of cuBLASLt: modules, plans and launch structures of one context, which must be current. */
export class CudaLauncher {
  readonly #arena: LaunchArena;
  readonly #modules: CudaModules;
  readonly #resident = new Map<string, number>();
  #blas: CublasLt | null = null;

  constructor(
    readonly driver: CudaDriver,
    readonly gpu: Gpu,
  ) {
    this.#arena = new LaunchArena(driver);
    this.#modules = new CudaModules(driver);
  }

  /** A checked launch over its buffers' memory. Throws RangeError for a source without a CUDA kernel. */
  prepare(
    source: KernelSource,
    grid: number,
    ranges: readonly MemoryRange[],
    scalars: readonly number[],
  ): Work {
    const { cuda: entry, cublas } = source;
    const addresses = ranges.map(({ address }) => address);
    const bytes = ranges.map((range) => range.bytes);
    if (entry === undefined) {
      if (cublas === undefined) throw new RangeError(`${source.name}: no CUDA kernel for it`);
      return { source, matmul: cublas, addresses };
    }
    const overlaps = entry.overlaps === true && this.gpu.capability >= 90;
    const handle = this.#modules.function(entry);
    const launch = { source, entry, function: handle, grid, addresses, bytes, scalars, overlaps };
    return entry.joins === undefined ? launch : { ...launch, parts: [{ ...launch, waitsFor: -1 }] };
  }

  /** Enqueues one launch on `stream`. */
  enqueue(work: Work, shared: SharedMemory, stream: bigint): void {
    if (isMatmul(work)) {
      const [x = 0n, weight = 0n, out = 0n] = work.addresses;
      this.#cublas().enqueue(work.matmul, { x, weight, out, workspace: shared.scratch }, stream);
      return;
    }
    try {
      this.#arena.launch(work, shared, stream);
    } catch (cause) {
      throw cause instanceof CudaError ? cause.of(work.source.name) : cause;
    }
  }

  /** Clusters of a kernel that run at the same time. */
  residentClusters(entry: CudaEntry): number {
    const key = `${entry.function} ${entry.sharedBytes ?? 0} ${entry.cluster ?? 1}`;
    const known = this.#resident.get(key);
    if (known !== undefined) return known;
    const count = this.#arena.residentClusters(entry, this.#modules.function(entry));
    this.#resident.set(key, count);
    return count;
  }

  #cublas(): CublasLt {
    this.#blas ??= new CublasLt(openCublasLibrary(this.driver.library));
    return this.#blas;
  }

  /** Why there are no products by cuBLASLt here, in a sentence; null where there are. */
  cublasProblem(): string | null {
    try {
      this.#cublas();
      return null;
    } catch (error) {
      if (error instanceof UserError && !(error instanceof CudaError)) return error.message;
      throw error;
    }
  }

  /** Gives everything back; nothing may run any more. */
  release(): void {
    this.#blas?.close();
    this.#modules.unload();
    this.#arena.release();
  }
}
