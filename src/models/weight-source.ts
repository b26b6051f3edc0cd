import { decodeToF32 } from "../base/convert.ts";
import type { DType, WeightDType } from "../base/dtypes.ts";
import { bytesPerElement } from "../base/dtypes.ts";
import { UserError } from "../base/errors.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import type { TensorStore } from "../formats/safetensors.ts";

/** A matrix [rows, columns] in device memory, row after row, in the type it has in the file. */
export interface Matrix {
  readonly buffer: DeviceBuffer;
  readonly dtype: WeightDType;
  readonly rows: number;
  readonly columns: number;
}

/** Bytes loaded so far, and in all. */
export type LoadProgress = (loadedBytes: number, totalBytes: number) => void;

interface CopyJob {
  readonly name: string;
  readonly dtype: WeightDType;
  readonly bytes: number;
  readonly buffer: DeviceBuffer;
  /** Vectors become float32, matrices stay what they are. */
  readonly asF32: boolean;
}

/** Who hands out weights by name and shape: a checkpoint, or whoever makes them up. */
export interface WeightRequests {
  readonly totalBytes: number;
  has(name: string): boolean;
  vector(name: string, length: number): DeviceBuffer;
  matrix(name: string, rows: number, columns: number): Matrix;
  stack(
    names: readonly string[],
    shape: readonly number[] | readonly (readonly number[])[],
    label: string,
  ): Matrix;
  /** Gives every buffer back. */
  free(): void;
}

/** Bytes read at once; twice as many are what loading costs beside the weights themselves. */
const chunkBytes = 4 * 2 ** 20;

const isWeightDType = (dtype: DType): dtype is WeightDType =>
  dtype === "f32" || dtype === "f16" || dtype === "bf16";

/**
 * Checks tensors, allocates their buffers, and afterwards copies them there in bounded chunks. `allocate` decides where:
 * a device, or nowhere when only the size is wanted.
 */
export class WeightSource implements WeightRequests {
  readonly #store: TensorStore;
  readonly #allocate: Device["allocate"];
  readonly #jobs: CopyJob[] = [];
  readonly #buffers: DeviceBuffer[] = [];

  constructor(store: TensorStore, allocate: Device["allocate"]) {
    this.#store = store;
    this.#allocate = allocate;
  }

  /** Bytes of device memory of everything asked for so far. */
  get totalBytes(): number {
    return this.#buffers.reduce((sum, buffer) => sum + buffer.bytes, 0);
  }

  has(name: string): boolean {
    return this.#store.tensors.has(name);
  }

  /** A vector [length] as float32. Throws UserError when it is missing or of another shape or type. */
  vector(name: string, length: number): DeviceBuffer {
    const dtype = this.#check(name, [length]);
    const buffer = this.#reserve(length * 4, name);
    this.#jobs.push({ name, dtype, bytes: length * bytesPerElement(dtype), buffer, asF32: true });
    return buffer;
  }

  /** A matrix [rows, columns]. Throws as {@link vector} does. */
  matrix(name: string, rows: number, columns: number): Matrix {
    return this.stack([name], [rows, columns], name);
  }

  /**
   * Tensors of one `shape`, or of shapes that differ in the first size only, one after the other as one matrix whose
   * rows are those of all leading sizes. Throws UserError also when their types differ.
   */
  stack(
    names: readonly string[],
    shape: readonly number[] | readonly (readonly number[])[],
    label: string,
  ): Matrix {
    const shapes = names.map(
      (_, i) => (typeof shape[0] === "number" ? shape : shape[i]) as readonly number[],
    );
    const columns = shapes[0]!.at(-1)!;
    const dtypes = names.map((name, i) => this.#check(name, shapes[i]!));
    const dtype = dtypes[0]!;
    const odd = dtypes.findIndex((other) => other !== dtype);
    if (odd >= 0) throw this.#bad(names[odd]!, `is ${dtypes[odd]}, expected ${dtype} like ${names[0]}`);
    const sizes = shapes.map((dimensions) => dimensions.reduce((a, b) => a * b, bytesPerElement(dtype)));
    const bytes = sizes.reduce((a, b) => a + b);
    const buffer = this.#reserve(bytes, label);
    let offset = 0;
    names.forEach((name, i) => {
      const size = sizes[i]!;
      this.#jobs.push({ name, dtype, bytes: size, buffer: buffer.slice(offset, size), asF32: false });
      offset += size;
    });
    return { buffer, dtype, rows: bytes / bytesPerElement(dtype) / columns, columns };
  }

  /** Copies everything asked for to its buffers. Rejects with what reading or `signal` rejects with. */
  async load(device: Device, onProgress?: LoadProgress, signal?: AbortSignal): Promise<void> {
    const total = this.#jobs.reduce((sum, { bytes }) => sum + bytes, 0);
    let loaded = 0;
    for (const { name, dtype, buffer, asF32 } of this.#jobs) {
      const growth = asF32 ? 4 / bytesPerElement(dtype) : 1;
      await this.#store.streamTensor(name, chunkBytes, (chunk, byteOffset) => {
        signal?.throwIfAborted();
        device.write(buffer, asF32 ? decodeToF32(chunk, dtype) : chunk, byteOffset * growth);
        loaded += chunk.length;
        onProgress?.(loaded, total);
      });
    }
  }

  /** Gives every buffer back. */
  free(): void {
    for (const buffer of this.#buffers) buffer.free();
    this.#buffers.length = 0;
  }

  #reserve(bytes: number, label: string): DeviceBuffer {
    const buffer = this.#allocate(bytes, label);
    this.#buffers.push(buffer);
    return buffer;
  }

  #check(name: string, shape: readonly number[]): WeightDType {
    const found = this.#store.tensors.get(name);
    if (!found) throw this.#bad(name, "is missing");
    if (found.shape.length !== shape.length || found.shape.some((size, axis) => size !== shape[axis])) {
      throw this.#bad(name, `has the shape [${found.shape.join(", ")}], expected [${shape.join(", ")}]`);
    }
    if (!isWeightDType(found.dtype)) throw this.#bad(name, `is ${found.dtype}, expected bf16, f16 or f32`);
    return found.dtype;
  }

  #bad(name: string, problem: string): UserError {
    return new UserError(
      `${this.#store.name}: the tensor ${name} ${problem}; its config.json says another model.`,
    );
  }
}
