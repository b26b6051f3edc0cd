import { checkInteger, checkOneOf } from "../../base/checks.ts";
import { bytesPerElement, type WeightDType } from "../../base/dtypes.ts";
import type { DeviceBuffer } from "../../device/device.ts";

/** A matrix as the checkpoint stores it: row-major [rows, columns] = [out, in], unconverted. */
export interface WeightMatrix {
  readonly buffer: DeviceBuffer;
  readonly dtype: WeightDType;
  /** Outputs. */
  readonly rows: number;
  /** Inputs; a multiple of 8. */
  readonly columns: number;
}

/** The number by which kernels know a dtype; `weights.as.ts` holds the same. */
export const dtypeCode: Record<WeightDType, number> = { bf16: 0, f16: 1, f32: 2 };

/** Bytes of the matrix. */
export function weightBytes({ dtype, rows, columns }: Omit<WeightMatrix, "buffer">): number {
  return rows * columns * bytesPerElement(dtype);
}

/**
 * Throws RangeError unless the buffer holds the matrix, `columns` is a multiple of 8 and the dtype is known, naming the
 * weight by `name`.
 */
export function checkWeight(name: string, weight: WeightMatrix): void {
  checkOneOf(`${name}.dtype`, weight.dtype, ["bf16", "f16", "f32"]);
  checkInteger(`${name}.rows`, weight.rows, { min: 1 });
  checkInteger(`${name}.columns`, weight.columns, { min: 8 });
  if (weight.columns % 8 !== 0) {
    throw new RangeError(`${name}.columns: expected a multiple of 8, got ${weight.columns}`);
  }
  checkBytes(name, weight.buffer, weightBytes(weight));
}

/** Throws RangeError for a buffer of less than `bytes` bytes, naming it by `name`. */
export function checkBytes(name: string, buffer: DeviceBuffer, bytes: number): void {
  if (buffer.bytes >= bytes) return;
  throw new RangeError(`${name}: expected a buffer of at least ${bytes} bytes, got ${buffer.bytes}`);
}
