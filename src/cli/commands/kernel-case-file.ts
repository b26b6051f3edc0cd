import { decodeToF32, type FloatDType } from "../../base/convert.ts";
import type { DType } from "../../base/dtypes.ts";
import { UserError } from "../../base/errors.ts";
import { openFileSource } from "../../files/file-source.ts";
import { openSafetensors, requireTensor, type SafetensorsFile } from "../../formats/safetensors.ts";
import type { TensorInfo } from "../../formats/safetensors-header.ts";

const spellings: Readonly<Record<string, boolean>> = { true: true, "1": true, false: false, "0": false };

/** What a tensor of a case must be. */
export interface TensorDemand {
  readonly dtypes: readonly DType[];
  /** A name for each axis; a size in place of a name must be met exactly. */
  readonly axes: readonly (string | number)[];
}

/** An open case: a safetensors file whose complaints name the file, the tensor or key, and what was expected. */
export class KernelCaseFile {
  readonly #file: SafetensorsFile;

  private constructor(file: SafetensorsFile) {
    this.#file = file;
  }

  /** Opens `path`. Rejects with a UserError when it is missing or no valid safetensors file. */
  static async open(path: string): Promise<KernelCaseFile> {
    return new KernelCaseFile(await openSafetensors(await openFileSource(path)));
  }

  /** The UserError of a case that cannot be run. */
  fail(what: string): UserError {
    return new UserError(`${this.#file.name}: ${what}.`);
  }

  has(name: string): boolean {
    return this.#file.tensors.has(name);
  }

  /** The sizes of a tensor that any shape is good for. */
  shapeOf(name: string): readonly number[] {
    return requireTensor(this.#file, name).shape;
  }

  /** Bytes of a tensor. */
  byteLengthOf(name: string): number {
    return requireTensor(this.#file, name).byteLength;
  }

  /** The tensor `name`, which must be as `demand` says, no size being 0. */
  tensor(name: string, { dtypes, axes }: TensorDemand): TensorInfo {
    const tensor = requireTensor(this.#file, name);
    if (!dtypes.includes(tensor.dtype)) {
      throw this.fail(`${name} must be ${dtypes.join(" or ")}, it is ${tensor.dtype}`);
    }
    const fits =
      axes.length === tensor.shape.length && axes.every((axis, i) => fitsAxis(axis, tensor.shape[i]!));
    if (fits) return tensor;
    throw this.fail(`${name} must have the shape [${axes.join(", ")}], it has [${tensor.shape.join(", ")}]`);
  }

  /** A number of the metadata; `fallback` when there is none. */
  number(key: string, fallback?: number): number {
    const text = this.#file.metadata.get(key);
    if (text === undefined && fallback !== undefined) return fallback;
    const value = text === undefined || text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isFinite(value)) return value;
    throw this.fail(`its metadata must give ${key} as a number, it gives ${JSON.stringify(text) ?? "none"}`);
  }

  /** A whole number of at least 1 of the metadata; `fallback` when there is none. */
  count(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (Number.isSafeInteger(value) && value >= 1) return value;
    throw this.fail(`its metadata must give ${key} as a whole number of at least 1, it gives ${value}`);
  }

  /** A flag of the metadata, false when there is none. */
  flag(key: string): boolean {
    const text = this.#file.metadata.get(key) ?? "false";
    const value = spellings[text.trim().toLowerCase()];
    if (value !== undefined) return value;
    throw this.fail(`its metadata must give ${key} as true or false, it gives ${JSON.stringify(text)}`);
  }

  /** All values of a tensor of floats, widened. */
  async floats(name: string, demand: TensorDemand & { readonly dtypes: readonly FloatDType[] }) {
    const { dtype } = this.tensor(name, demand);
    return decodeToF32(await this.#file.readTensor(name), dtype as FloatDType);
  }

  /** All values of a tensor of int32, or of int64 that int32 can hold. */
  async integers(name: string, axes: TensorDemand["axes"]): Promise<Int32Array> {
    const { dtype } = this.tensor(name, { dtypes: ["i32", "i64"], axes });
    const bytes = Uint8Array.from(await this.#file.readTensor(name));
    if (dtype === "i32") return new Int32Array(bytes.buffer);
    const wide = new BigInt64Array(bytes.buffer);
    const outside = wide.find((value) => value !== BigInt.asIntN(32, value));
    if (outside !== undefined) throw this.fail(`${name} holds ${outside}, which is no int32`);
    return Int32Array.from(wide, Number);
  }

  /** The bytes of a tensor in order, a piece at a time. */
  stream(name: string, consume: (chunk: Uint8Array, byteOffset: number) => void): Promise<void> {
    return this.#file.streamTensor(name, 2 ** 24, consume);
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

function fitsAxis(axis: string | number, size: number): boolean {
  return typeof axis === "number" ? size === axis : size >= 1;
}
