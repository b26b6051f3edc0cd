import type { CudaEntry, KernelSource } from "../device.ts";
import type { CudaDriver } from "./driver.ts";
import type { NativeMemory } from "./library.ts";

/** Device addresses of what the launches of a program share. */
export interface SharedMemory {
  readonly scratch: bigint;
  readonly counters: bigint;
}

/** A launch with the addresses that its kernel gets. */
export interface CudaLaunch {
  readonly source: KernelSource;
  readonly entry: CudaEntry;
  /** CUfunction. */
  readonly function: bigint;
  readonly grid: number;
  /** Device addresses, in the order of the source's buffers. */
  readonly addresses: readonly bigint[];
  readonly scalars: readonly number[];
}

/** Bytes of the parameters at most; CUlaunchConfig, its attribute, the parameter list and the tensor maps follow. */
const PARAMETERS = 4096;
const CONFIG = PARAMETERS;
const ATTRIBUTE = CONFIG + 64;
const EXTRA = ATTRIBUTE + 80;
const PARAMETER_BYTES = EXTRA + 48;
const TOTAL = PARAMETER_BYTES + 16;

/** A CUtensorMap takes 128 bytes at an address that is a multiple of 64. */
const TENSOR_MAP = 128;

/** CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE; CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION. */
const BUFFER_POINTER = 1n;
const BUFFER_SIZE = 2n;
const CLUSTER_DIMENSION = 4;

/** CUtensorMapDataType of 16-bit integers; the copy engine only moves them, so bf16 and f16 look the same. */
const UINT16 = 1;
const SWIZZLE_128B = 3;
const PROMOTE_TO_256B = 3;

/** Native memory in which a launch's structures are laid out as cuda.h declares them. */
export class LaunchArena {
  readonly #memory: NativeMemory;
  readonly #base: bigint;
  readonly #offset: number;

  constructor(readonly driver: CudaDriver) {
    this.#memory = driver.library.allocate(TOTAL + TENSOR_MAP);
    this.#base = (this.#memory.address + 127n) & ~127n;
    this.#offset = Number(this.#base - this.#memory.address);
  }

  release(): void {
    this.driver.library.release(this.#memory);
  }

  /** Enqueues `launch` on `stream`. */
  launch(launch: CudaLaunch, shared: SharedMemory, stream: bigint): void {
    const bytes = this.#writeParameters(launch, shared);
    this.#word64(PARAMETER_BYTES, BigInt(bytes));
    this.#word64(EXTRA, BUFFER_POINTER);
    this.#word64(EXTRA + 8, this.#base);
    this.#word64(EXTRA + 16, BUFFER_SIZE);
    this.#word64(EXTRA + 24, this.#base + BigInt(PARAMETER_BYTES));
    this.#word64(EXTRA + 32, 0n);
    this.#writeConfig(launch, stream);
    const config = this.#base + BigInt(CONFIG);
    this.driver.call("cuLaunchKernelEx", config, launch.function, null, this.#base + BigInt(EXTRA));
  }

  #writeConfig({ entry, grid }: CudaLaunch, stream: bigint): void {
    const cluster = entry.cluster ?? 1;
    const words = [grid, 1, 1, entry.blockSize, 1, 1, entry.sharedBytes ?? 0, 0];
    words.forEach((word, i) => {
      this.#word32(CONFIG + 4 * i, word);
    });
    this.#word64(CONFIG + 32, stream);
    this.#word64(CONFIG + 40, this.#base + BigInt(ATTRIBUTE));
    this.#word32(CONFIG + 48, cluster > 1 ? 1 : 0);
    this.#word32(ATTRIBUTE, CLUSTER_DIMENSION);
    this.#word32(ATTRIBUTE + 4, 0);
    [cluster, 1, 1].forEach((word, i) => {
      this.#word32(ATTRIBUTE + 8 + 4 * i, word);
    });
  }

  #writeParameters(launch: CudaLaunch, shared: SharedMemory): number {
    let at = 0;
    for (const map of launch.entry.tensorMaps ?? []) {
      this.#encodeTensorMap(at, map, launch.addresses[map.buffer] ?? 0n);
      at += TENSOR_MAP;
    }
    const scratch = launch.entry.scratchBytes === undefined ? [] : [shared.scratch];
    const counters = launch.entry.counters === undefined ? [] : [shared.counters];
    for (const address of [...launch.addresses, ...scratch, ...counters]) {
      this.#word64(at, address);
      at += 8;
    }
    launch.scalars.forEach((value, i) => {
      const view = this.#memory.view;
      if (launch.source.scalars[i]?.[1] === "f32") view.setFloat32(this.#offset + at, value, true);
      else view.setInt32(this.#offset + at, value, true);
      at += 4;
    });
    return at;
  }

  #encodeTensorMap(at: number, map: NonNullable<CudaEntry["tensorMaps"]>[number], address: bigint): void {
    this.driver.call(
      "cuTensorMapEncodeTiled",
      this.#base + BigInt(at),
      UINT16,
      2,
      address,
      BigUint64Array.of(BigInt(map.columns), BigInt(map.rows)),
      BigUint64Array.of(BigInt(map.columns * 2)),
      Uint32Array.of(map.boxColumns, map.boxRows),
      Uint32Array.of(1, 1),
      0,
      SWIZZLE_128B,
      PROMOTE_TO_256B,
      0,
    );
  }

  #word32(at: number, value: number): void {
    this.#memory.view.setUint32(this.#offset + at, value, true);
  }

  #word64(at: number, value: bigint): void {
    this.#memory.view.setBigUint64(this.#offset + at, value, true);
  }
}
