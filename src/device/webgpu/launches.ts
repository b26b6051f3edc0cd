// From a checked launch to a dispatch: bindings, the grid over two dimensions, the scalars of all launches of a program.

import { UserError } from "../../base/errors.ts";
import { ceilDivide, roundUp } from "../../base/integers.ts";
import { mebibytes } from "../../base/mebibytes.ts";
import type { KernelSource } from "../device.ts";
import { USAGE } from "./command-queue.ts";
import type { Pipelines } from "./pipelines.ts";
import type { WebGpuBuffer } from "./webgpu-buffer.ts";
import type { Dispatch } from "./webgpu-program.ts";

/** Between the scalars of two launches: the alignment that every adapter takes. */
export const SCALAR_STRIDE = 256;

/** What the launches of a program share. */
export interface SharedMemory {
  readonly scalars: GPUBuffer;
  readonly scalarOffset: number;
  readonly scratch: WebGpuBuffer | null;
}

/** A launch with its own buffers checked and its grid spread over two dimensions. */
export interface PreparedLaunch {
  readonly source: KernelSource;
  readonly grid: number;
  readonly buffers: readonly WebGpuBuffer[];
  readonly scalars: readonly number[];
  readonly groups: readonly [x: number, y: number];
}

/** Checks what a launch binds and spreads its grid. Throws UserError or RangeError for what this adapter does not take. */
export function prepareLaunch(
  gpu: GPUDevice,
  source: KernelSource,
  grid: number,
  buffers: readonly WebGpuBuffer[],
  scalars: readonly number[],
): PreparedLaunch {
  checkBindings(gpu, source, buffers);
  return { source, grid, buffers, scalars, groups: splitGrid(grid, gpu) };
}

/** A grid over two dimensions where one does not hold it; kernels leave out what is past `scalars.grid`. */
function splitGrid(grid: number, { limits }: GPUDevice): [x: number, y: number] {
  const most = limits.maxComputeWorkgroupsPerDimension;
  const y = Math.max(1, ceilDivide(grid, most));
  if (y > most) throw new RangeError(`a grid of ${grid} workgroups is more than WebGPU takes`);
  return [ceilDivide(grid, y), y];
}

/** Throws UserError for a buffer larger than a binding, RangeError for a slice that may not begin where it does. */
function checkBindings({ limits }: GPUDevice, source: KernelSource, buffers: readonly WebGpuBuffer[]): void {
  const { maxStorageBufferBindingSize: most, minStorageBufferOffsetAlignment: alignment } = limits;
  buffers.forEach((buffer, index) => {
    const name = `${source.name}: ${source.buffers[index]}`;
    if (buffer.bytes > most) {
      const sizes = `${buffer.label} has ${mebibytes(buffer.bytes)}, this adapter binds ${mebibytes(most)} at most`;
      throw new UserError(`${name}: ${sizes}.`);
    }
    if (buffer.byteOffset % alignment !== 0) {
      throw new RangeError(
        `${name}: a slice must begin at a multiple of ${alignment} bytes, got ${buffer.byteOffset}`,
      );
    }
  });
}

/** The scalars of all launches in one uniform buffer, a launch each 256 bytes. */
export function uploadScalars(gpu: GPUDevice, launches: readonly PreparedLaunch[]): GPUBuffer {
  const size = Math.max(1, launches.length) * SCALAR_STRIDE;
  const buffer = gpu.createBuffer({ label: "scalars", size, usage: USAGE.uniform | USAGE.copyDst });
  const view = new DataView(new ArrayBuffer(size));
  launches.forEach(({ source, scalars, grid, groups }, index) => {
    let at = index * SCALAR_STRIDE;
    scalars.forEach((value, i) => {
      if (source.scalars[i]?.[1] === "f32") view.setFloat32(at, value, true);
      else view.setInt32(at, value, true);
      at += 4;
    });
    view.setUint32(at, grid, true);
    view.setUint32(at + 4, groups[0], true);
  });
  gpu.queue.writeBuffer(buffer, 0, view.buffer);
  return buffer;
}

/** Compiles a launch where its specialisation is new, and binds its buffers and scalars. */
export function bindLaunch(
  gpu: GPUDevice,
  pipelines: Pipelines,
  { source, buffers, groups }: PreparedLaunch,
  shared: SharedMemory,
): Dispatch {
  const { scalars, scalarOffset, scratch } = shared;
  const pipeline = pipelines.pipeline(source, buffers);
  const entries: GPUBindGroupEntry[] = [...pipeline.bindings.keys()].map((binding) => {
    const { gpu: whole, byteOffset, bytes } = buffers[binding]!;
    // An array of vec4 is bound in whole elements; between aligned slices there is room for that.
    const size = Math.min(roundUp(Math.max(bytes, 1), 16), whole.size - byteOffset);
    return { binding, resource: { buffer: whole, offset: byteOffset, size } };
  });
  if (pipeline.usesScratch && scratch !== null) {
    entries.push({ binding: source.buffers.length + 1, resource: { buffer: scratch.gpu } });
  }
  const size = roundUp(4 * source.scalars.length + 8, 16);
  const uniform = { buffer: scalars, offset: scalarOffset, size };
  const bindings = gpu.createBindGroup({
    label: source.name,
    layout: pipeline.layout,
    entries: [...entries, { binding: source.buffers.length, resource: uniform }],
  });
  return { name: source.name, pipeline: pipeline.gpu, bindings, groups };
}
