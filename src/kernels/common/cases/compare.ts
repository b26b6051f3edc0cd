import { decodeToF32, type FloatDType } from "../../../base/convert.ts";
import type { Finding, Tolerance } from "./kernel-case.ts";

/** An output as the device left it, and what it should be. */
export interface ComparedRows {
  readonly output: string;
  /** All that the buffer holds, the rows past `liveRows` included. */
  readonly actual: Float32Array;
  /** The type that the kernel wrote and `actual` was widened from; default f32. */
  readonly storedAs?: FloatDType;
  /** Values of a row. */
  readonly width: number;
  /** Rows the kernel had to write; what follows must still be poison. */
  readonly liveRows: number;
  /** Which rows `expected` holds, ascending; default: all live ones. */
  readonly rows?: readonly number[];
  /** [rows.length, width]: float64. */
  readonly expected: ArrayLike<number>;
  /** What every value of a row must be exactly, such as +∞; null where it must be finite. Default: finite. */
  readonly constantOf?: (row: number) => number | null;
  readonly tolerance: Tolerance;
}

interface Judged {
  absolute: number;
  relative: number;
  cosine: number;
  problem: string | null;
}

const place = (index: number, width: number) => `row ${Math.floor(index / width)} value ${index % width}`;

/** Rows past the live ones must be untouched. */
function findOverrun({ actual, storedAs = "f32", width, liveRows }: ComparedRows): string | null {
  const poison = new Uint32Array(decodeToF32(new Uint8Array(4).fill(0xff), storedAs).buffer)[0];
  const bits = new Uint32Array(actual.buffer, actual.byteOffset, actual.length);
  const at = bits.subarray(liveRows * width).findIndex((word) => word !== poison);
  if (at < 0) return null;
  return `writes ${place(liveRows * width + at, width)}, past the ${liveRows} rows in use`;
}

/** The exact places of infinities and NaN, over every live row, whether compared or not. */
function findMisplaced({ actual, width, liveRows, constantOf }: ComparedRows): string | null {
  for (let row = 0; row < liveRows; row++) {
    const constant = constantOf?.(row) ?? null;
    for (let i = row * width; i < (row + 1) * width; i++) {
      const value = actual[i]!;
      if (constant === null ? Number.isFinite(value) : value === constant) continue;
      return `${place(i, width)} is ${value} where ${constant ?? "a finite value"} belongs`;
    }
  }
  return null;
}

function rootMeanSquare(values: ArrayLike<number>, start: number, width: number): number {
  let squares = 0;
  for (let i = start; i < start + width; i++) squares += values[i]! ** 2;
  return Math.sqrt(squares / width);
}

function judgeValues(compared: ComparedRows, rows: readonly number[]): Judged {
  const { actual, expected, width, tolerance } = compared;
  const judged: Judged = { absolute: 0, relative: 0, cosine: 0, problem: null };
  let [dot, actualSquares, expectedSquares] = [0, 0, 0];
  rows.forEach((row, k) => {
    const floor = rootMeanSquare(expected, k * width, width) || 1;
    for (let i = 0; i < width; i++) {
      const [got, truth] = [actual[row * width + i]!, expected[k * width + i]!];
      if (!Number.isFinite(truth)) continue;
      const error = Math.abs(got - truth);
      judged.absolute = Math.max(judged.absolute, error);
      judged.relative = Math.max(judged.relative, error / Math.max(Math.abs(truth), floor));
      dot += got * truth;
      actualSquares += got * got;
      expectedSquares += truth * truth;
      if (error <= tolerance.absolute || error <= tolerance.relative * Math.abs(truth)) continue;
      judged.problem ??= `${place(row * width + i, width)} is ${got}, float64 has ${truth}`;
    }
  });
  const norms = Math.sqrt(actualSquares) * Math.sqrt(expectedSquares);
  if (norms > 0) judged.cosine = Math.max(0, 1 - dot / norms);
  else if (actualSquares !== expectedSquares) judged.cosine = 1;
  return judged;
}

/**
 * Compares an output in stages: its length, rows it must not touch, the exact places of infinities and NaN, then the values
 * and their cosine. A stage that fails ends the comparison.
 */
export function compareRows(compared: ComparedRows): Finding {
  const { output, actual, width, liveRows, expected, tolerance } = compared;
  const rows = compared.rows ?? Array.from({ length: liveRows }, (_, row) => row);
  const finding = { output, rows: liveRows, checkedRows: rows.length, tolerance };
  const misfit =
    actual.length < liveRows * width || expected.length !== rows.length * width
      ? `has ${actual.length} values where ${liveRows * width} belong, truth for ${expected.length}`
      : (findOverrun(compared) ?? findMisplaced(compared));
  if (misfit !== null) {
    return { ...finding, absolute: Number.NaN, relative: Number.NaN, cosine: Number.NaN, problem: misfit };
  }
  const judged = judgeValues(compared, rows);
  const most = tolerance.cosine ?? Number.POSITIVE_INFINITY;
  if (judged.cosine > most) judged.problem ??= `1 − cosine is ${judged.cosine}, more than ${most}`;
  return { ...finding, ...judged };
}

/** `count` (at least 2) of `rows` rows, ascending: the first, the last, and one drawn from each span between; all if few. */
export function sampleRows(rows: number, count: number, uniform: () => number): number[] {
  if (rows <= count) return Array.from({ length: rows }, (_, row) => row);
  const span = (rows - 2) / (count - 2);
  const inner = Array.from({ length: count - 2 }, (_, i) => 1 + Math.floor((i + uniform()) * span));
  return [0, ...inner, rows - 1];
}
