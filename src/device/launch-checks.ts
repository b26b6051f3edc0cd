import type { Device, DeviceBuffer, KernelSource, Launch } from "./device.ts";

/** Throws RangeError unless `byteOffset`…`byteOffset + bytes` lies in `buffer`. */
export function checkRange(buffer: DeviceBuffer, byteOffset: number, bytes: number): void {
  if (Number.isSafeInteger(byteOffset) && Number.isSafeInteger(bytes) && byteOffset >= 0 && bytes >= 0) {
    if (byteOffset + bytes <= buffer.bytes) return;
  }
  throw new RangeError(
    `${buffer.label}: bytes ${byteOffset}…${byteOffset + bytes} lie outside its ${buffer.bytes} bytes`,
  );
}

/** Throws RangeError unless a launch has a grid, and as many buffers and scalars as its kernel takes. */
export function checkLaunch(
  source: KernelSource,
  grid: number,
  buffers: readonly DeviceBuffer[],
  scalars: readonly number[],
): void {
  if (!Number.isInteger(grid) || grid < 0) {
    throw new RangeError(`${source.name}: expected a grid size, got ${grid}`);
  }
  if (buffers.length === source.buffers.length && scalars.length === source.scalars.length) return;
  throw new RangeError(
    `${source.name}: expected ${source.buffers.length} buffers and ${source.scalars.length} scalars, ` +
      `got ${buffers.length} and ${scalars.length}`,
  );
}

/** What a device makes of a launch before it is run. */
export type PrepareLaunch<Prepared> = (
  source: KernelSource,
  grid: number,
  buffers: readonly DeviceBuffer[],
  scalars: readonly number[],
) => Prepared;

/** Lets `step` record on `target`: every launch as `prepare` makes it, in order. Launches over nothing are checked and dropped. */
export function collectLaunches<Prepared>(
  target: Device,
  step: (launch: Launch) => void,
  prepare: PrepareLaunch<Prepared>,
): Prepared[] {
  const launches: Prepared[] = [];
  const enqueue: PrepareLaunch<void> = (source, grid, buffers, scalars = []) => {
    const launch = prepare(source, grid, buffers, scalars);
    if (grid > 0) launches.push(launch);
  };
  step(Object.assign(enqueue, { target }) as Launch);
  return launches;
}
