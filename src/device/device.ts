/** Which implementation a device is. */
export type DeviceKind = "cpu" | "webgpu" | "cuda";

/** What a kernel variant is chosen by. */
export interface DeviceLimits {
  /** Bytes that buffers of this device can hold in all. */
  readonly memoryBytes: number;
  /** Worker threads on the CPU, multiprocessors on a GPU. */
  readonly computeUnits: number;
  /** Optional abilities in effect, such as `relaxed-simd`. */
  readonly features: ReadonlySet<string>;
  /** How many clusters of a kernel run at the same time; on CUDA alone. */
  residentClusters?(entry: CudaEntry): number;
  /** Why products by cuBLASLt ({@link CudaMatmul}) cannot be had, in a sentence; null where they can. On CUDA alone. */
  cublasProblem?(): string | null;
  /** What a workgroup may use; on WebGPU alone. */
  readonly webgpu?: WebGpuLimits;
}

/** Limits of a WebGPU device in effect. */
export interface WebGpuLimits {
  /** Bytes of memory that the invocations of a workgroup share: 16384 with the default limits. */
  readonly workgroupBytes: number;
  /** Invocations of a workgroup: 256 with the default limits. */
  readonly invocations: number;
  /** Storage buffers of a launch: 8 with the default limits. */
  readonly storageBuffers: number;
  /** Bytes of a buffer, or a slice of one, that a launch can be given: 128 MiB with the default limits. */
  readonly bindingBytes: number;
  /** Bytes of one buffer: 256 MiB with the default limits. */
  readonly bufferBytes: number;
  /** Sizes that subgroups can have here; 0 where there are none. */
  readonly subgroupSizes: readonly [least: number, most: number];
}

/** A range of device memory. Contents are undefined until written. */
export interface DeviceBuffer {
  readonly bytes: number;
  /** What it holds, for error messages and memory reports. */
  readonly label: string;
  /** A view of `bytes` bytes from `byteOffset` on; it shares the memory. Throws RangeError outside the buffer. */
  slice(byteOffset: number, bytes: number): DeviceBuffer;
  /** Gives the memory back; freeing a slice does nothing. */
  free(): void;
}

/** How a scalar argument is passed to a kernel. */
export type ScalarKind = "i32" | "f32";

/** 16-bit values [rows, columns] that a CUDA kernel reads by tensor map, in boxes with 128-byte swizzle. */
export interface CudaTensorMap {
  /** Position of the buffer among the launch's buffers, or the kernel's scratch memory from a byte on. */
  readonly buffer: number | { readonly scratchOffset: number };
  readonly rows: number;
  readonly columns: number;
  readonly boxRows: number;
  /** At most 64. */
  readonly boxColumns: number;
  /**
   * Makes it a map of three dimensions, [boxColumns, rows, columns / boxColumns], and one copy fetches this many neighbouring boxes,
   * which lie one after the other in shared memory. `columns` is then a multiple of boxColumns.
   */
  readonly boxes?: number;
}

/**
 * Where CUDA finds a kernel and how it starts it. The kernel's parameters are the tensor maps, the buffers, the scratch
 * memory and the counters (where it wants them), the scalars; the grid of a launch counts thread blocks.
 */
export interface CudaEntry {
  /** A file of `cubin/`, such as `mla-decode.sm90.cubin`. */
  readonly module: string;
  /** The name of the kernel in that module. */
  readonly function: string;
  /** Threads a block. */
  readonly blockSize: number;
  /** Bytes of dynamic shared memory a block; default 0. */
  readonly sharedBytes?: number;
  /** Blocks a cluster; default 1. */
  readonly cluster?: number;
  readonly tensorMaps?: readonly CudaTensorMap[];
  /** Memory the kernel wants for itself while it runs; all launches of a device share it. */
  readonly scratchBytes?: number;
  /** How many u32 counters the kernel wants: zero before the first run, and left zero by every run; shared too. */
  readonly counters?: number;
  /**
   * Whether it may begin before the launch before it ends (programmatic dependent launch, on Hopper and newer): the kernel
   * then waits itself (griddepcontrol.wait) before it touches what earlier launches write, on every path, and lets the next
   * one begin (griddepcontrol.launch_dependents). Weights and a step's inputs (lengths, tables, positions, slots, counts) are read
   * before that, so no launch of the same program may write them.
   */
  readonly overlaps?: boolean;
  /** Launches of this kernel that follow each other become one; see {@link CudaJoin}. */
  readonly joins?: CudaJoin;
}

/**
 * How launches of one kernel that follow each other become one, whose blocks, all resident at the same time, take them part by part.
 * The kernel has one parameter, a struct: the counters' address, the number of parts and a word of nothing as i32, and for each part its
 * buffers' addresses, its scalars, and two i32: the last part of the launch that has to end before this one may begin (-1: none), and
 * whether a later part names this one so. The first part also waits for earlier launches. A launch has the shared memory of the part that
 * wants most.
 */
export interface CudaJoin {
  /** Parts of a launch at most. */
  readonly most: number;
  /** Positions of the buffers that a part reads and that launches of the same program may write. */
  readonly reads: readonly number[];
  /** Positions of the buffers that a part writes. */
  readonly writes: readonly number[];
  /**
   * Positions of the scalars by which blocks share a part's outputs: parts that agree in them and write one buffer leave its places to the
   * same blocks, and need not wait for one another.
   */
  readonly shares: readonly number[];
}

/**
 * out = (or +=) scale · x · Wᵀ by NVIDIA's cuBLASLt, in place of a kernel; the grid plays no part. Buffers: x [rows, inputs],
 * weight [outputs, inputs], out [rows, outputs], dense. Every row is computed and written.
 */
export interface CudaMatmul {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Of x and weight. */
  readonly inputType: "bf16" | "f16";
  readonly outType: "f32" | "bf16" | "f16";
  readonly mode: "store" | "accumulate";
  readonly scale: number;
  /** As many products of those sizes at once, their matrices dense no more; default: one. */
  readonly batch?: CudaMatmulBatch;
}

/** Where the matrices of a batch of products lie, in elements: from one product to the next, and from one row of x and out to the next. */
export interface CudaMatmulBatch {
  readonly count: number;
  readonly xStride: number;
  readonly xPitch: number;
  readonly weightStride: number;
  /** Each weight is [inputs, outputs]; otherwise [outputs, inputs]. */
  readonly weightByInputs: boolean;
  readonly outStride: number;
  readonly outPitch: number;
}

/** A `.wgsl` file as the build brings it into JavaScript. */
export interface WgslSource {
  /** The file's name, for messages. */
  readonly name: string;
  /** Without comments and `#include` lines. */
  readonly text: string;
  readonly includes: readonly WgslSource[];
}

/**
 * A WebGPU kernel. Its code declares the buffers of the launch as bindings 0, 1 … of group 0; the device adds a uniform
 * `scalars` with the launch's scalars, and `grid`, the number of workgroups that the launch asked for.
 */
export interface WebGpuEntry {
  readonly code: WgslSource;
  /** Default `main`. */
  readonly entryPoint?: string;
  /** Constants of the specialisation: module constants of the code, and names that its `#if` lines can ask for. */
  readonly constants?: Readonly<Record<string, number | boolean>>;
  /** WGSL extensions that the code needs, such as `f16`. */
  readonly enables?: readonly string[];
  /** Memory between launches of one program, which share it; the code declares it at `@binding(SCRATCH)`. */
  readonly scratchBytes?: number;
}

/** A kernel as every device can find it: one name, and one entry per device kind that has it. */
export interface KernelSource {
  /** Cache key, timing label and test id: `operation.stage`. */
  readonly name: string;
  /** Labels of the buffers, in the order of the launch. */
  readonly buffers: readonly string[];
  /** Names and kinds of the scalars, in the order of the launch. */
  readonly scalars: readonly (readonly [name: string, kind: ScalarKind])[];
  /** The WebAssembly export that runs items `begin`…`end` of the grid. */
  readonly cpu?: string;
  readonly cuda?: CudaEntry;
  /** On CUDA, in place of a kernel. */
  readonly cublas?: CudaMatmul;
  readonly webgpu?: WebGpuEntry;
}

/** A kernel made ready on one device. */
export interface Kernel {
  readonly source: KernelSource;
}

/**
 * Enqueues `kernel` over `grid` independent items. Scalars are fixed when a step is recorded; whatever changes per
 * token lives in buffers.
 */
export interface Launch {
  (kernel: KernelSource, grid: number, buffers: readonly DeviceBuffer[], scalars?: readonly number[]): void;
  /** The device that is recorded for: what a variant is chosen by. */
  readonly target: { readonly kind: DeviceKind; readonly limits: DeviceLimits };
}

/** Milliseconds one launch of a program took. */
export interface LaunchTiming {
  readonly name: string;
  readonly milliseconds: number;
}

/** A recorded step: a list of calls on the CPU, a graph on CUDA, a pass on WebGPU. */
export interface Program {
  /** Runs every launch in the order of recording. Does not wait on asynchronous devices. */
  run(): void;
  /** Resolves when all submitted work is done; rejects when it failed. */
  idle(): Promise<void>;
  /** Runs once with a clock around each launch. */
  profile(): Promise<LaunchTiming[]>;
  /** Runs once and gives the milliseconds that it took, by the device's own clock. */
  time(): Promise<number>;
  /** Gives back what the recording holds; the buffers it names stay. */
  free(): void;
}

/** The narrow interface that the layers above know: memory, kernels, recorded steps. */
export interface Device {
  readonly kind: DeviceKind;
  /** For people: processor or adapter, threads, variant. */
  readonly name: string;
  readonly limits: DeviceLimits;
  /** Bytes of live buffers, and the largest that number has been. */
  readonly memory: {
    readonly usedBytes: number;
    readonly peakBytes: number;
    /** Everything that the GPU's memory lost since the device was opened: context, kernels and graphs too; on CUDA alone. */
    readonly reservedBytes?: number;
  };
  /** Memory for `bytes` bytes, aligned to 256. Throws UserError when it does not fit, naming the sizes. */
  allocate(bytes: number, label: string): DeviceBuffer;
  /** Copies `data` to `byteOffset` of the buffer. Throws RangeError when it does not fit. */
  write(buffer: DeviceBuffer, data: ArrayBufferView, byteOffset?: number): void;
  /** Copies `bytes` bytes back once all submitted work is done. */
  read(buffer: DeviceBuffer, byteOffset: number, bytes: number): Promise<ArrayBuffer>;
  /** Records the launches that `step` makes. */
  record(step: (launch: Launch) => void): Program;
  /** Ends workers and gives everything back; later calls throw. */
  close(): Promise<void>;
}
