import { fromBf16, toBf16 } from "./bf16.ts";
import type { DType } from "./dtypes.ts";
import { bytesPerElement } from "./dtypes.ts";
import { fromF16, toF16 } from "./f16.ts";
import { fromE4m3, toE4m3 } from "./fp8-e4m3.ts";

/** The element types that {@link decodeToF32} and {@link encodeFromF32} know. */
export type FloatDType = "f32" | "f16" | "bf16" | "fp8_e4m3";

/** The floating point types that convert to and from float32. */
export const floatDTypes: readonly FloatDType[] = ["f32", "f16", "bf16", "fp8_e4m3"];

/** Whether `dtype` is one of {@link floatDTypes}. */
export function isFloatDType(dtype: DType): dtype is FloatDType {
  return (floatDTypes as readonly DType[]).includes(dtype);
}

/**
 * The float32 values [n] of `bytes` [n · bytesPerElement(dtype)], little-endian, at any alignment; always a copy.
 * Throws RangeError when the bytes are no whole number of elements.
 */
export function decodeToF32(bytes: Uint8Array, dtype: FloatDType): Float32Array {
  const width = bytesPerElement(dtype);
  if (bytes.length % width !== 0) {
    throw new RangeError(`bytes must be a multiple of ${width} long to hold ${dtype}, got ${bytes.length}`);
  }
  if (dtype === "fp8_e4m3") return fromE4m3(bytes);
  const aligned = dtype === "f32" || bytes.byteOffset % width !== 0 ? new Uint8Array(bytes) : bytes;
  const length = bytes.length / width;
  if (dtype === "f32") return new Float32Array(aligned.buffer, aligned.byteOffset, length);
  const bits = new Uint16Array(aligned.buffer, aligned.byteOffset, length);
  return dtype === "f16" ? fromF16(bits) : fromBf16(bits);
}

/** The bytes [n · bytesPerElement(dtype)] of `values` [n] in `dtype`, little-endian, to nearest even; always a copy. */
export function encodeFromF32(values: Float32Array, dtype: FloatDType): Uint8Array {
  if (dtype === "fp8_e4m3") return toE4m3(values);
  const array = dtype === "f32" ? values.slice() : dtype === "f16" ? toF16(values) : toBf16(values);
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
