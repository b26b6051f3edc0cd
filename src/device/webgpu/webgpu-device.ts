import { UserError } from "../../base/errors.ts";
import { roundUp } from "../../base/integers.ts";
import { mebibytes } from "../../base/mebibytes.ts";
import type { Device, DeviceBuffer, DeviceLimits, KernelSource, Launch, Program } from "../device.ts";
import { checkLaunch, checkRange, collectLaunches } from "../launch-checks.ts";
import {
  adapterName,
  type FoundAdapter,
  findAdapter,
  requestDevice,
  type WebGpuAdapterOptions,
} from "./adapter.ts";
import { CommandQueue, USAGE } from "./command-queue.ts";
import { bindLaunch, type PreparedLaunch, prepareLaunch, SCALAR_STRIDE, uploadScalars } from "./launches.ts";
import { limitsOf } from "./limits.ts";
import { Pipelines } from "./pipelines.ts";
import { WebGpuBuffer } from "./webgpu-buffer.ts";
import { WebGpuProgram } from "./webgpu-program.ts";
import { unpackWgsl } from "./wgsl-texts.ts";

/** How a WebGPU device is opened. */
export interface WebGpuDeviceOptions extends WebGpuAdapterOptions {
  /** Fills fresh buffers with NaN bytes (0xff), so that reading what was never written shows. For tests. */
  readonly poison?: boolean;
  /** Bytes that buffers may take in all. WebGPU does not tell what there is; default: an estimate. */
  readonly memoryBytes?: number;
}

/** WGSL extensions by the feature that allows them. */
const extensions: Readonly<Record<string, string>> = {
  "shader-f16": "f16",
  subgroups: "subgroups",
  "subgroup-matrix": "chromium_experimental_subgroup_matrix",
};

/** A GPU through WebGPU: the browser's, or Dawn in Node. Buffers are GPUBuffers, recorded steps lists of dispatches. */
export class WebGpuDevice implements Device {
  readonly kind = "webgpu";
  readonly name: string;
  readonly limits: DeviceLimits;
  readonly hasTimestamps: boolean;
  readonly #queue: CommandQueue;
  readonly #pipelines: Pipelines;
  readonly #poison: GPUBuffer | null;
  readonly #live = new Set<WebGpuBuffer>();
  #used = 0;
  #peak = 0;
  #isClosed = false;

  private constructor(
    readonly gpu: GPUDevice,
    { adapter, features }: FoundAdapter,
    options: WebGpuDeviceOptions,
  ) {
    this.#queue = new CommandQueue(gpu);
    const enabled = [...features].flatMap((name) => extensions[name] ?? []);
    this.#pipelines = new Pipelines(gpu, new Set(enabled));
    this.hasTimestamps = features.has("timestamp-query");
    this.limits = limitsOf(gpu, adapter, features, options.memoryBytes);
    const has = ["subgroup-matrix", "subgroups", "shader-f16"].filter((name) => features.has(name as never));
    this.name = `${adapterName(adapter)}, ${has.length > 0 ? has.join(", ") : "portable"}`;
    this.#poison = options.poison ? this.#makePoison() : null;
  }

  /**
   * Opens the best adapter. Throws UserError that says what is missing (Dawn, the Vulkan loader, an adapter), RangeError for
   * a feature to disable that there is not.
   */
  static async open(options: WebGpuDeviceOptions = {}): Promise<WebGpuDevice> {
    const found = await findAdapter(options);
    await unpackWgsl();
    return new WebGpuDevice(await requestDevice(found), found, options);
  }

  get memory(): { usedBytes: number; peakBytes: number } {
    return { usedBytes: this.#used, peakBytes: this.#peak };
  }

  /** Specialisations compiled so far. */
  get pipelineCount(): number {
    return this.#pipelines.size;
  }

  checkOpen(): void {
    if (this.#isClosed) throw new UserError("The WebGPU device is closed.");
    this.#queue.check();
  }

  allocate(bytes: number, label: string): DeviceBuffer {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new RangeError(`${label}: expected a size in bytes, got ${bytes}`);
    }
    this.checkOpen();
    const most = this.gpu.limits.maxBufferSize;
    const size = Math.min(roundUp(Math.max(bytes, 1), 256), Math.max(most - (most % 4), bytes));
    if (size > most) {
      throw new UserError(
        `${label} takes ${mebibytes(bytes)}; a buffer of this adapter holds ${mebibytes(most)} at most.`,
      );
    }
    if (this.#used + bytes > this.limits.memoryBytes) throw this.#noRoom(bytes, label);
    const usage = USAGE.storage | USAGE.copySrc | USAGE.copyDst;
    const gpu = this.#queue.guardMemory(
      () => this.gpu.createBuffer({ label, size, usage }),
      () => this.#noRoom(bytes, label),
    );
    const buffer = new WebGpuBuffer(this, gpu, 0, bytes, label, true);
    this.#live.add(buffer);
    this.#used += bytes;
    this.#peak = Math.max(this.#peak, this.#used);
    this.#fillWithPoison(gpu);
    return buffer;
  }

  #noRoom(bytes: number, label: string): UserError {
    const used = `${mebibytes(this.#used)} of about ${mebibytes(this.limits.memoryBytes)} are in use`;
    return new UserError(`The WebGPU device has no room for ${label} (${mebibytes(bytes)}): ${used}.`);
  }

  #makePoison(): GPUBuffer {
    const size = 2 ** 20;
    const buffer = this.gpu.createBuffer({ label: "poison", size, usage: USAGE.copySrc | USAGE.copyDst });
    this.gpu.queue.writeBuffer(buffer, 0, new Uint8Array(size).fill(0xff));
    return buffer;
  }

  #fillWithPoison(target: GPUBuffer): void {
    const source = this.#poison;
    if (source === null) return;
    const encoder = this.gpu.createCommandEncoder();
    for (let at = 0; at < target.size; at += source.size) {
      encoder.copyBufferToBuffer(source, 0, target, at, Math.min(source.size, target.size - at));
    }
    this.#queue.enqueue(encoder.finish());
  }

  /** Gives a buffer's memory back once submitted work is done with it; called by the buffer. */
  release(buffer: WebGpuBuffer): void {
    if (this.#isClosed || !this.#live.delete(buffer)) return;
    this.#queue.flush();
    buffer.gpu.destroy();
    this.#used -= buffer.bytes;
  }

  write(buffer: DeviceBuffer, data: ArrayBufferView, byteOffset = 0): void {
    const target = this.#own(buffer);
    checkRange(buffer, byteOffset, data.byteLength);
    if (data.byteLength === 0) return;
    const start = target.byteOffset + byteOffset;
    let bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    if (start % 4 !== 0 || bytes.length % 4 !== 0) {
      // Whole words are written: what follows in the last one has to be padding of the allocation.
      const isTail = target.owner && byteOffset + bytes.length === buffer.bytes;
      if (start % 4 !== 0 || !isTail) {
        throw new RangeError(
          `${buffer.label}: WebGPU writes whole words, got bytes ${start}…${start + bytes.length}`,
        );
      }
      const padded = new Uint8Array(roundUp(bytes.length, 4));
      padded.set(bytes);
      bytes = padded;
    }
    this.#queue.write(target.gpu, start, bytes);
  }

  async read(buffer: DeviceBuffer, byteOffset: number, bytes: number): Promise<ArrayBuffer> {
    const source = this.#own(buffer);
    checkRange(buffer, byteOffset, bytes);
    const start = source.byteOffset + byteOffset;
    const skipped = start % 4;
    const words = await this.#queue.read(
      source.gpu,
      start - skipped,
      roundUp(Math.max(bytes, 1) + skipped, 4),
    );
    return words.byteLength === bytes ? words : words.slice(skipped, skipped + bytes);
  }

  enqueue(commands: GPUCommandBuffer, afterSubmit?: () => void): void {
    this.#queue.enqueue(commands, afterSubmit);
  }

  flush(): void {
    if (!this.#isClosed) this.#queue.flush();
  }

  idle(): Promise<void> {
    if (this.#isClosed) return Promise.reject(new UserError("The WebGPU device is closed."));
    return this.#queue.idle();
  }

  async timestamps(
    count: number,
    encode: (encoder: GPUCommandEncoder, queries: GPUQuerySet) => void,
  ): Promise<BigUint64Array> {
    this.checkOpen();
    const queries = this.gpu.createQuerySet({ type: "timestamp", count });
    const usage = USAGE.queryResolve | USAGE.copySrc;
    const resolved = this.gpu.createBuffer({ label: "timestamps", size: 8 * count, usage });
    try {
      const encoder = this.gpu.createCommandEncoder();
      encode(encoder, queries);
      encoder.resolveQuerySet(queries, 0, count, resolved, 0);
      this.#queue.enqueue(encoder.finish());
      return new BigUint64Array(await this.#queue.read(resolved, 0, 8 * count));
    } finally {
      queries.destroy();
      resolved.destroy();
    }
  }

  record(step: (launch: Launch) => void): Program {
    this.checkOpen();
    const launches = collectLaunches<PreparedLaunch>(this, step, (...launch) => this.#prepare(...launch));
    const scalars = uploadScalars(this.gpu, launches);
    const scratchBytes = Math.max(0, ...launches.map(({ source }) => source.webgpu?.scratchBytes ?? 0));
    const scratch = scratchBytes === 0 ? null : (this.allocate(scratchBytes, "scratch") as WebGpuBuffer);
    const dispatches = launches.map((launch, index) => {
      const shared = { scalars, scalarOffset: index * SCALAR_STRIDE, scratch };
      return bindLaunch(this.gpu, this.#pipelines, launch, shared);
    });
    this.checkOpen();
    return new WebGpuProgram(this, dispatches, scalars, scratch);
  }

  #prepare(
    source: KernelSource,
    grid: number,
    buffers: readonly DeviceBuffer[],
    scalars: readonly number[],
  ): PreparedLaunch {
    checkLaunch(source, grid, buffers, scalars);
    const own = buffers.map((buffer) => this.#own(buffer));
    return prepareLaunch(this.gpu, source, grid, own, scalars);
  }

  #own(buffer: DeviceBuffer): WebGpuBuffer {
    this.checkOpen();
    if (buffer instanceof WebGpuBuffer && buffer.device === this) return buffer;
    throw new TypeError(`${buffer.label}: expected a buffer of this device`);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#queue.end();
    await this.gpu.lost;
  }
}
