import { bf16ToF32, f32ToBf16 } from "./bf16.ts";
import { checkInteger, checkLength } from "./checks.ts";
import { bitsToF32, f32ToBits } from "./f32-bits.ts";
import { e4m3ToF32, f32ToE4m3 } from "./fp8-e4m3.ts";

/**
 * The fp8 cache entry, 656 bytes a token: 512 latent values as e4m3; 4 float32 scales, one per 128 values; 64 rotary
 * values as bf16, which stay unquantised. A latent value is its e4m3 times its group's scale. Little-endian.
 */
export const fp8Entry = {
  latentWidth: 512,
  ropeWidth: 64,
  groupWidth: 128,
  scalesOffset: 512,
  ropeOffset: 528,
  bytes: 656,
} as const;

/**
 * The scale of a group whose largest magnitude is `largest`: 2^ceil(log2(largest / 448)), the least power of two
 * that brings it to 448 or under, never below 2^-126 (so for a group of zeros too). On the bits of the float32: 448 is
 * 1.75·2^8, adding 0x1fffff carries into the exponent exactly where the mantissa is over 1.75.
 */
export function fp8GroupScale(largest: number): number {
  const exponent = ((f32ToBits(largest) + 0x1fffff) >>> 23) - 8;
  return bitsToF32(Math.max(exponent, 1) << 23);
}

/** Widths of an fp8 entry: `latentWidth` is a multiple of 128. */
export interface Fp8EntryWidths {
  /** d_c */
  readonly latentWidth: number;
  /** d_r */
  readonly ropeWidth: number;
}

/**
 * Bytes of an fp8 entry of any width: d_c e4m3 values, a float32 scale per 128 of them, d_r bf16 rotary values; 656 for
 * 512 and 64. Throws RangeError for a `latentWidth` that is no multiple of 128.
 */
export function fp8EntryBytes({ latentWidth, ropeWidth }: Fp8EntryWidths): number {
  checkInteger("ropeWidth", ropeWidth, { min: 0 });
  if (checkInteger("latentWidth", latentWidth, { min: 1 }) % fp8Entry.groupWidth !== 0) {
    throw new RangeError(`latentWidth must be a multiple of 128 in an fp8 entry, got ${latentWidth}`);
  }
  return latentWidth + latentWidth / 32 + 2 * ropeWidth;
}

/**
 * Writes one cache entry from `latent` [d_c] and `rope` [d_r] into `target` [fp8EntryBytes] (made when not given). Values that
 * are NaN stay NaN and do not count for the scale. Throws RangeError for lengths that make no entry.
 */
export function encodeFp8Entry(latent: Float32Array, rope: Float32Array, target?: Uint8Array): Uint8Array {
  const bytes = fp8EntryBytes({ latentWidth: latent.length, ropeWidth: rope.length });
  const entry = checkLength("target", target ?? new Uint8Array(bytes), bytes);
  const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength);
  for (let start = 0; start < latent.length; start += fp8Entry.groupWidth) {
    const end = start + fp8Entry.groupWidth;
    let largest = 0;
    for (let i = start; i < end; i++) {
      const magnitude = Math.abs(latent[i]!);
      if (magnitude > largest) largest = magnitude;
    }
    const scale = fp8GroupScale(largest);
    for (let i = start; i < end; i++) entry[i] = f32ToE4m3(latent[i]! / scale);
    view.setFloat32(latent.length + start / 32, scale, true);
  }
  const ropeOffset = latent.length + latent.length / 32;
  for (let i = 0; i < rope.length; i++) view.setUint16(ropeOffset + 2 * i, f32ToBf16(rope[i]!), true);
  return entry;
}

/**
 * The values of the cache entry `entry` [fp8EntryBytes]: d_c latent ones, then d_r rotary ones; of 512 and 64 when `widths` are
 * not given. Throws RangeError for another length.
 */
export function decodeFp8Entry(entry: Uint8Array, widths: Fp8EntryWidths = fp8Entry): Float32Array {
  const { latentWidth, ropeWidth } = widths;
  checkLength("entry", entry, fp8EntryBytes(widths));
  const values = new Float32Array(latentWidth + ropeWidth);
  const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength);
  for (let i = 0; i < latentWidth; i++) {
    const group = Math.floor(i / fp8Entry.groupWidth);
    values[i] = e4m3ToF32(entry[i]!) * view.getFloat32(latentWidth + 4 * group, true);
  }
  const ropeOffset = latentWidth + latentWidth / 32;
  for (let i = 0; i < ropeWidth; i++) {
    values[latentWidth + i] = bf16ToF32(view.getUint16(ropeOffset + 2 * i, true));
  }
  return values;
}
