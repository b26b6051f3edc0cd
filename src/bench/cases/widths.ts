import { decodeToF32 } from "../../base/convert.ts";
import type { WeightDType } from "../../base/dtypes.ts";
import { type BenchMemory, storedNormals } from "../case.ts";

/** An attention layer's widths. */
export interface LayerShape {
  readonly heads: number;
  readonly latentWidth: number;
  readonly ropeWidth: number;
  readonly nopeWidth: number;
  readonly valueWidth: number;
  /** Of kv_b. */
  readonly weightDtype: WeightDType;
}

/** DeepSeek-V2-Lite's and Youtu's attention layer: h=16, d_c=512, d_r=64, d_n=d_v=128, bf16 weights. */
export const deepseekLayer: LayerShape = {
  heads: 16,
  latentWidth: 512,
  ropeWidth: 64,
  nopeWidth: 128,
  valueWidth: 128,
  weightDtype: "bf16",
};

/** The words of a case's name. */
export function describeLayer({ heads, latentWidth, ropeWidth, nopeWidth, valueWidth }: LayerShape): string {
  return `h=${heads} d_c=${latentWidth} d_r=${ropeWidth} d_n=${nopeWidth} d_v=${valueWidth}`;
}

/** `copies` random kv_b matrices with the same values, and those values as float32. */
export function uploadKvB(memory: BenchMemory, shape: LayerShape, copies: number) {
  const { heads, latentWidth: columns, weightDtype: dtype } = shape;
  const rows = heads * (shape.nopeWidth + shape.valueWidth);
  const stored = storedNormals(rows * columns, 3, columns ** -0.5, dtype);
  const buffers = memory.uploadCopies(stored, copies, "kvB");
  return {
    weights: buffers.map((buffer) => ({ buffer, dtype, rows, columns })),
    values: decodeToF32(stored, dtype),
  };
}
