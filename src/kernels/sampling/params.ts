import { checkFinite, checkInteger } from "../../base/checks.ts";

/** How one row's token is drawn. */
export interface SamplingParams {
  /** 0 takes the largest logit; the other fields then play no part. */
  readonly temperature: number;
  /** Tokens kept; 0 keeps all. */
  readonly topK: number;
  /** Mass kept, from the likeliest token on, 0…1; 1 keeps all. */
  readonly topP: number;
  /** Tokens less likely than this share of the likeliest are dropped, 0…1; 0 keeps all. */
  readonly minP: number;
  /** 0…2⁵³−1. */
  readonly seed: number;
  /** Number of the draw within its sequence, 0…2³²−1. */
  readonly step: number;
}

/** Bytes of one row of the params buffer: f32 temperature, i32 topK, f32 topP, f32 minP, u32 seed (two words), u32 step, 0. */
export const SAMPLING_PARAMS_BYTES = 32;

/**
 * The params buffer's contents, [rows, 32 bytes]. Throws TypeError or RangeError naming the field that is out of its
 * range.
 */
export function packSamplingParams(rows: readonly SamplingParams[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(rows.length * SAMPLING_PARAMS_BYTES));
  rows.forEach((row, index) => {
    checkParams(row);
    const at = index * SAMPLING_PARAMS_BYTES;
    view.setFloat32(at, row.temperature, true);
    view.setInt32(at + 4, row.topK, true);
    view.setFloat32(at + 8, row.topP, true);
    view.setFloat32(at + 12, row.minP, true);
    view.setUint32(at + 16, row.seed % 2 ** 32, true);
    view.setUint32(at + 20, Math.floor(row.seed / 2 ** 32), true);
    view.setUint32(at + 24, row.step, true);
  });
  return new Uint8Array(view.buffer);
}

function checkParams(params: SamplingParams): void {
  checkFinite("temperature", params.temperature, { min: 0 });
  checkFinite("topP", params.topP, { min: 0, max: 1 });
  checkFinite("minP", params.minP, { min: 0, max: 1 });
  checkInteger("topK", params.topK, { min: 0, max: 2 ** 31 - 1 });
  checkInteger("seed", params.seed, { min: 0 });
  checkInteger("step", params.step, { min: 0, max: 2 ** 32 - 1 });
}
