import { bf16ToF32, f32ToBf16 } from "./bf16.ts";
import { checkLength } from "./checks.ts";
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

/**
 * Writes one cache entry from `latent` [512] and `rope` [64] into `target` [656] (made when not given). Values that
 * are NaN stay NaN and do not count for the scale. Throws RangeError on any other length.
 */
export function encodeFp8Entry(
  latent: Float32Array,
  rope: Float32Array,
  target = new Uint8Array(fp8Entry.bytes),
): Uint8Array {
  checkLength("latent", latent, fp8Entry.latentWidth);
  checkLength("rope", rope, fp8Entry.ropeWidth);
  checkLength("target", target, fp8Entry.bytes);
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  for (let group = 0; group < fp8Entry.latentWidth / fp8Entry.groupWidth; group++) {
    const start = group * fp8Entry.groupWidth;
    const end = start + fp8Entry.groupWidth;
    let largest = 0;
    for (let i = start; i < end; i++) {
      const magnitude = Math.abs(latent[i]!);
      if (magnitude > largest) largest = magnitude;
    }
    const scale = fp8GroupScale(largest);
    for (let i = start; i < end; i++) target[i] = f32ToE4m3(latent[i]! / scale);
    view.setFloat32(fp8Entry.scalesOffset + 4 * group, scale, true);
  }
  for (let i = 0; i < fp8Entry.ropeWidth; i++) {
    view.setUint16(fp8Entry.ropeOffset + 2 * i, f32ToBf16(rope[i]!), true);
  }
  return target;
}

/**
 * Reads the cache entry `entry` [656] into `target` [576]: 512 latent values, then 64 rotary ones (made when not
 * given). Throws RangeError on any other length.
 */
export function decodeFp8Entry(
  entry: Uint8Array,
  target = new Float32Array(fp8Entry.latentWidth + fp8Entry.ropeWidth),
): Float32Array {
  checkLength("entry", entry, fp8Entry.bytes);
  checkLength("target", target, fp8Entry.latentWidth + fp8Entry.ropeWidth);
  const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength);
  for (let i = 0; i < fp8Entry.latentWidth; i++) {
    const group = Math.floor(i / fp8Entry.groupWidth);
    target[i] = e4m3ToF32(entry[i]!) * view.getFloat32(fp8Entry.scalesOffset + 4 * group, true);
  }
  for (let i = 0; i < fp8Entry.ropeWidth; i++) {
    target[fp8Entry.latentWidth + i] = bf16ToF32(view.getUint16(fp8Entry.ropeOffset + 2 * i, true));
  }
  return target;
}
