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
  /** Bytes of each buffer, where somebody asks. */
  readonly bytes?: readonly number[];
  readonly scalars: readonly number[];
  /** Whether it may begin before the launch before it ends. */
  readonly overlaps: boolean;
  /** Of a kernel that joins launches: the parts of this one, in order. */
  readonly parts?: readonly LaunchPart[];
}

/** Where something lies on the device. */
export interface MemoryRange {
  readonly address: bigint;
  readonly bytes: number;
}

/** One of the launches that were joined, its scalars followed by what the device adds. */
export interface LaunchPart {
  readonly source: KernelSource;
  readonly addresses: readonly bigint[];
  /** Bytes of each buffer. */
  readonly bytes: readonly number[];
  readonly scalars: readonly number[];
  /** The last part of the launch that has to end before this one may begin; -1: none. */
  readonly waitsFor: number;
}

/** Bytes of the parameters at most; CUlaunchConfig, its attributes and the parameters' addresses follow. */
const PARAMETERS = 4096;
const CONFIG = PARAMETERS;
const ATTRIBUTE = CONFIG + 64;
/** sizeof(CUlaunchAttribute): its id, then 64 bytes of value from byte 8 on. */
const ATTRIBUTE_BYTES = 72;
const ADDRESSES = ATTRIBUTE + 2 * ATTRIBUTE_BYTES;
const TOTAL = ADDRESSES + 1024;

/** A CUtensorMap takes 128 bytes at an address that is a multiple of 64. */
const TENSOR_MAP = 128;

/** CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION and CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION. */
const CLUSTER_DIMENSION = 4;
const PROGRAMMATIC_SERIALIZATION = 6;

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
    // One address for each parameter: only the driver knows where a kernel with tensor maps wants the ones after them.
    this.#writeParameters(launch, shared).forEach((at, i) => {
      this.#word64(ADDRESSES + 8 * i, this.#base + BigInt(at));
    });
    this.#writeConfig(launch, stream);
    const [config, addresses] = [this.#base + BigInt(CONFIG), this.#base + BigInt(ADDRESSES)];
    this.driver.call("cuLaunchKernelEx", config, launch.function, addresses, null);
  }

  /** Clusters of a kernel that fit on the GPU at the same time. */
  residentClusters(entry: CudaEntry, kernel: bigint): number {
    this.#writeConfig({ entry, grid: entry.cluster ?? 1, overlaps: false }, 0n);
    return this.driver.integer("cuOccupancyMaxActiveClusters", kernel, this.#base + BigInt(CONFIG));
  }

  #writeConfig(
    { entry, grid, overlaps }: Pick<CudaLaunch, "entry" | "grid" | "overlaps">,
    stream: bigint,
  ): void {
    const cluster = entry.cluster ?? 1;
    const words = [grid, 1, 1, entry.blockSize, 1, 1, entry.sharedBytes ?? 0, 0];
    words.forEach((word, i) => {
      this.#word32(CONFIG + 4 * i, word);
    });
    this.#word64(CONFIG + 32, stream);
    this.#word64(CONFIG + 40, this.#base + BigInt(ATTRIBUTE));
    const attributes = [
      ...(cluster > 1 ? [[CLUSTER_DIMENSION, cluster, 1, 1]] : []),
      ...(overlaps ? [[PROGRAMMATIC_SERIALIZATION, 1]] : []),
    ];
    this.#word32(CONFIG + 48, attributes.length);
    attributes.forEach(([id = 0, ...value], i) => {
      this.#word64(ATTRIBUTE + i * ATTRIBUTE_BYTES, BigInt(id));
      value.forEach((word, at) => {
        this.#word32(ATTRIBUTE + i * ATTRIBUTE_BYTES + 8 + 4 * at, word);
      });
    });
  }

  /** Writes the one parameter of joined launches, as CudaJoin describes it. */
  #writeParts(parts: readonly LaunchPart[], counters: bigint): number[] {
    const { view } = this.#memory;
    this.#word64(0, counters);
    this.#word32(8, parts.length);
    this.#word32(12, 0);
    let at = 16;
    parts.forEach(({ source, addresses, scalars, waitsFor }, index) => {
      for (const address of addresses) {
        this.#word64(at, address);
        at += 8;
      }
      const announces = parts.some((later) => later.waitsFor === index) ? 1 : 0;
      [...scalars, waitsFor, announces].forEach((value, i) => {
        if (source.scalars[i]?.[1] === "f32") view.setFloat32(this.#offset + at, value, true);
        else view.setInt32(this.#offset + at, value, true);
        at += 4;
      });
    });
    return [0];
  }

  /** Writes the parameters and gives their offsets. */
  #writeParameters(launch: CudaLaunch, shared: SharedMemory): number[] {
    if (launch.parts !== undefined) return this.#writeParts(launch.parts, shared.counters);
    const offsets: number[] = [];
    let at = 0;
    const place = (bytes: number): number => {
      offsets.push(at);
      at += bytes;
      return at - bytes;
    };
    for (const map of launch.entry.tensorMaps ?? []) {
      const { buffer } = map;
      const address =
        typeof buffer === "number"
          ? (launch.addresses[buffer] ?? 0n)
          : shared.scratch + BigInt(buffer.scratchOffset);
      this.#encodeTensorMap(place(TENSOR_MAP), map, address);
    }
    const scratch = launch.entry.scratchBytes === undefined ? [] : [shared.scratch];
    const counters = launch.entry.counters === undefined ? [] : [shared.counters];
    for (const address of [...launch.addresses, ...scratch, ...counters]) this.#word64(place(8), address);
    launch.scalars.forEach((value, i) => {
      const { view } = this.#memory;
      if (launch.source.scalars[i]?.[1] === "f32") view.setFloat32(this.#offset + place(4), value, true);
      else view.setInt32(this.#offset + place(4), value, true);
    });
    return offsets;
  }

  #encodeTensorMap(at: number, map: NonNullable<CudaEntry["tensorMaps"]>[number], address: bigint): void {
    const { rows, columns, boxRows, boxColumns, boxes } = map;
    const flat = boxes === undefined;
    this.driver.call(
      "cuTensorMapEncodeTiled",
      this.#base + BigInt(at),
      UINT16,
      flat ? 2 : 3,
      address,
      BigUint64Array.from((flat ? [columns, rows] : [boxColumns, rows, columns / boxColumns]).map(BigInt)),
      BigUint64Array.from((flat ? [columns * 2] : [columns * 2, boxColumns * 2]).map(BigInt)),
      Uint32Array.from(flat ? [boxColumns, boxRows] : [boxColumns, boxRows, boxes]),
      Uint32Array.from(flat ? [1, 1] : [1, 1, 1]),
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
