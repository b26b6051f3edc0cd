import type { Device, DeviceBuffer } from "./device.ts";

/**
 * Runs `make` with an `allocate` of `device` and gives its result; when it throws, every buffer that it got is given back: what needs
 * several buffers gets all of them or none.
 */
export function allocateTogether<Made>(
  device: Pick<Device, "allocate">,
  make: (allocate: Device["allocate"]) => Made,
): Made {
  const got: DeviceBuffer[] = [];
  try {
    return make((bytes, label) => {
      const buffer = device.allocate(bytes, label);
      got.push(buffer);
      return buffer;
    });
  } catch (error) {
    for (const buffer of got) buffer.free();
    throw error;
  }
}

function nowhere(bytes: number, label: string): DeviceBuffer {
  return { bytes, label, slice: (_, size) => nowhere(size, label), free: () => {} };
}

/** The bytes that `make` allocates, of no device's memory. */
export function bytesOf(make: (allocate: Device["allocate"]) => void): number {
  let sum = 0;
  make((bytes, label) => {
    sum += bytes;
    return nowhere(bytes, label);
  });
  return sum;
}
