import { decodeToF32, encodeFromF32 } from "../../../base/convert.ts";
import type { WeightDType } from "../../../base/dtypes.ts";
import type { Random } from "../../../base/random.ts";

/** A matrix as a checkpoint stores it, and the values that its bytes stand for. */
export interface StoredMatrix {
  readonly dtype: WeightDType;
  readonly rows: number;
  readonly columns: number;
  readonly bytes: Uint8Array;
  /** [rows · columns]. */
  readonly values: Float32Array;
}

/** A matrix [rows, columns] of normal numbers times `scale` (1/√columns when not given), rounded to `dtype`. */
export function randomMatrix(
  random: Random,
  { dtype, rows, columns }: Pick<StoredMatrix, "dtype" | "rows" | "columns">,
  scale = columns ** -0.5,
): StoredMatrix {
  const bytes = encodeFromF32(random.normals(rows * columns, scale), dtype);
  return { dtype, rows, columns, bytes, values: decodeToF32(bytes, dtype) };
}

/** A source of rows of noise that costs a copy a row: windows of one table of normal numbers. */
export interface Noise {
  /** `length` numbers, at most 2^16. Shares the table's memory: not to be written to. */
  window(random: Random, length: number): Float32Array;
}

/** {@link Noise} of normal numbers times `scale`, clamped to ±1 if `isClamped`, rounded to bf16. */
export function createNoise(random: Random, scale: number, isClamped = false): Noise {
  const limit = isClamped ? 1 : Number.POSITIVE_INFINITY;
  const numbers = random.normals(2 ** 17, scale).map((value) => Math.max(-limit, Math.min(limit, value)));
  const table = decodeToF32(encodeFromF32(numbers, "bf16"), "bf16");
  return {
    window: (source, length) => {
      const start = source.integer(table.length - length);
      return table.subarray(start, start + length);
    },
  };
}
