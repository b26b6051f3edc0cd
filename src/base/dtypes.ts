const elementBytes = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  fp8_e4m3: 1,
  fp8_e5m2: 1,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u64: 8,
  u32: 4,
  u16: 2,
  u8: 1,
  bool: 1,
} as const;

/** The element types that tensors, buffers and checkpoint files may have. */
export type DType = keyof typeof elementBytes;

/** The element types that model weights are read in as they are. */
export type WeightDType = "f32" | "f16" | "bf16";

/** Every element type, in the order of the table above. */
export const dtypes = Object.keys(elementBytes) as readonly DType[];

/** Whether `name` is one of {@link dtypes}. */
export function isDType(name: unknown): name is DType {
  return typeof name === "string" && Object.hasOwn(elementBytes, name);
}

/** Bytes that one element of `dtype` takes. */
export function bytesPerElement(dtype: DType): number {
  return elementBytes[dtype];
}
