import { latentEntrySize } from "../common/latent.as";
import { addFour, multiplyFour } from "../common/latent-rows.as";
import { narrowBf16, narrowE4m3, narrowF16 } from "../common/narrow.as";
import { argFloat, argInt, argPointer, multiplyAdd, sumLanes } from "../common/simd.as";
import { BF16, F16, weightSize } from "../common/weights.as";

/** Tokens that share one pass over a head's W_UK. */
const BLOCK: i32 = 4;
/** In scratch: the addresses of four results, then the queries of a block. */
const QUERIES: usize = 16;

/** Rotates the pairs of `source` by the row of cosines, then sines, at `table`, times `scale`; `target` may be `source`. */
function rotate(source: usize, target: usize, table: usize, width: usize, interleaved: bool, scale: f32): void {
  const halfBytes = width << 1;
  for (let pair: usize = 0; pair < halfBytes; pair += 4) {
    const first = interleaved ? pair << 1 : pair;
    const second = interleaved ? first + 4 : pair + halfBytes;
    const a = load<f32>(source + first);
    const b = load<f32>(source + second);
    const cos = load<f32>(table + pair);
    const sin = load<f32>(table + pair + halfBytes);
    store<f32>(target + first, (a * cos - b * sin) * scale);
    store<f32>(target + second, (b * cos + a * sin) * scale);
  }
}

/** entry = x / √(mean(x²) + ε) · weight over `width` values. */
function normLatent(x: usize, weight: usize, entry: usize, width: usize, epsilon: f32): void {
  const bytes = width << 2;
  let squares = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const v = v128.load(x + i);
    squares = multiplyAdd(v, v, squares);
  }
  const scale = f32x4.splat(<f32>1 / sqrt<f32>(sumLanes(squares) / <f32>width + epsilon));
  for (let i: usize = 0; i < bytes; i += 16) {
    v128.store(entry + i, f32x4.mul(f32x4.mul(v128.load(x + i), scale), v128.load(weight + i)));
  }
}

/** The fp8 entry of src/base/fp8-entry.ts for any d_c: e4m3 values, a scale per 128 of them, bf16 rotary values. */
function storeFp8(entry: usize, latentWidth: usize, ropeWidth: usize, target: usize): void {
  const scales = target + latentWidth;
  for (let group: usize = 0; group < latentWidth >> 7; group++) {
    const source = entry + (group << 9);
    let largest: f32 = 0;
    for (let i: usize = 0; i < 512; i += 4) {
      const magnitude = abs<f32>(load<f32>(source + i));
      if (magnitude > largest) largest = magnitude;
    }
    const exponent = <i32>((reinterpret<u32>(largest) + 0x1fffff) >> 23) - 8;
    const scale = reinterpret<f32>(max(exponent, 1) << 23);
    for (let i: usize = 0; i < 128; i++) {
      store<u8>(target + (group << 7) + i, narrowE4m3(load<f32>(source + (i << 2)) / scale));
    }
    store<f32>(scales + (group << 2), scale);
  }
  const rope = scales + (latentWidth >> 5);
  for (let i: usize = 0; i < ropeWidth; i++) {
    store<u16>(rope + (i << 1), narrowBf16(load<f32>(entry + ((latentWidth + i) << 2))));
  }
}

/** Rounds an entry into its place in the pool. */
function storeEntry(entry: usize, target: usize, latentWidth: usize, ropeWidth: usize, dtype: i32): void {
  const width = latentWidth + ropeWidth;
  if (dtype == 3) storeFp8(entry, latentWidth, ropeWidth, target);
  else if (dtype == 0) memory.copy(target, entry, width << 2);
  else {
    for (let i: usize = 0; i < width; i++) {
      const value = load<f32>(entry + (i << 2));
      store<u16>(target + (i << 1), dtype == 1 ? narrowF16(value) : narrowBf16(value));
    }
  }
}

/**
 * Items are tokens. Buffers: latent, normWeight, positions, rotaryTable, slots, cache, rowCount; scalars: d_c, d_r,
 * epsilon, interleaved, cache dtype, rows of the pool.
 */
export function mlaPrologueAppend(args: usize, begin: i32, end: i32, scratch: usize): void {
  const latentWidth = <usize>argInt(args, 7);
  const ropeWidth = <usize>argInt(args, 8);
  const dtype = argInt(args, 11);
  const entrySize = latentEntrySize(dtype, <i32>latentWidth, <i32>ropeWidth);
  const rowBytes = (latentWidth + ropeWidth) << 2;
  const rows = min(end, load<i32>(argPointer(args, 6)));
  for (let row = begin; row < rows; row++) {
    const slot = load<u32>(argPointer(args, 4) + (<usize>row << 2));
    if (slot >= <u32>argInt(args, 12)) continue;
    const latent = argPointer(args, 0) + <usize>row * rowBytes;
    const rope = latentWidth << 2;
    const position = load<u32>(argPointer(args, 2) + (<usize>row << 2));
    const table = argPointer(args, 3) + ((<usize>position * ropeWidth) << 2);
    normLatent(latent, argPointer(args, 1), scratch, latentWidth, argFloat(args, 9));
    rotate(latent + rope, scratch + rope, table, ropeWidth, argInt(args, 10) != 0, 1);
    storeEntry(scratch, argPointer(args, 5) + <usize>slot * entrySize, latentWidth, ropeWidth, dtype);
  }
}

// @ts-ignore: decorator
@inline
function queryScaleAt(args: usize, position: usize, flag: i32): f32 {
  return flag ? load<f32>(argPointer(args, 3) + (position << 2)) : 1;
}

/** out[c] = Σ_j q[j]·w[j][c] over the `nope` rows j of w, [width] each, for one token. */
function absorbOne<T>(w: usize, nope: usize, width: usize, q: usize, out: usize): void {
  const rowBytes = width * sizeof<T>();
  const quarter = nope >> 2;
  memory.fill(out, 0, width << 2);
  for (let j: usize = 0; j < quarter; j++) {
    addFour<T>(q + (j << 2), quarter << 2, w + j * rowBytes, quarter * rowBytes, width, out);
  }
}

/** The same for the tokens of a block, whose queries and results scratch names. */
function absorb<T>(w: usize, nope: usize, width: usize, rows: i32, scratch: usize): void {
  const q = scratch + QUERIES;
  if (rows < 3) {
    for (let row: usize = 0; row < <usize>rows; row++) {
      absorbOne<T>(w, nope, width, q + row * (nope << 2), load<u32>(scratch + (row << 2)));
    }
    return;
  }
  const rowBytes = width * sizeof<T>(), quarter = nope >> 2;
  const packed = q + (nope << 4);
  packQueries(q, nope, rows, packed);
  for (let c: usize = 0; c < width; c += 8) {
    multiplyFour<T>(packed, w + c * sizeof<T>(), quarter * rowBytes, rowBytes, quarter, scratch, c << 2);
  }
}

/** The queries of a block, [rows, nope], side by side in the order in which `addFour` takes them; the last one fills up. */
function packQueries(q: usize, nope: usize, rows: i32, packed: usize): void {
  const quarterBytes = nope;
  for (let row: usize = 0; row < 4; row++) {
    let from = q + <usize>min(<i32>row, rows - 1) * (nope << 2);
    let to = packed + (row << 2);
    for (let j: usize = 0; j < nope; j += 4, from += 4, to += 64) {
      store<f32>(to, load<f32>(from));
      store<f32>(to, load<f32>(from + quarterBytes), 16);
      store<f32>(to, load<f32>(from + 2 * quarterBytes), 32);
      store<f32>(to, load<f32>(from + 3 * quarterBytes), 48);
    }
  }
}

/**
 * Items are heads × blocks of 4 tokens, a head's blocks together. Buffers: q, positions, rotaryTable, queryScale,
 * kvB, qOut, rowCount; scalars: heads, d_n, d_r, d_v, d_c, interleaved, has queryScale, weight dtype, blocks.
 */
export function mlaPrologueAbsorb(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = <usize>argInt(args, 7);
  const nope = <usize>argInt(args, 8);
  const rope = <usize>argInt(args, 9);
  const latent = <usize>argInt(args, 11);
  const dtype = argInt(args, 14);
  const blocks = argInt(args, 15);
  const count = load<i32>(argPointer(args, 6));
  const qBytes = (nope + rope) << 2;
  const outBytes = (latent + rope) << 2;
  const headElements = (nope + <usize>argInt(args, 10)) * latent;
  for (let item = begin; item < end; item++) {
    const head = <usize>(item / blocks);
    const first = (item % blocks) * BLOCK;
    const rows = min(BLOCK, count - first);
    if (rows <= 0) continue;
    const start = <usize>first * heads + head;
    for (let row = 0; row < rows; row++) {
      const at = start + <usize>row * heads;
      const q = argPointer(args, 0) + at * qBytes;
      const target = argPointer(args, 5) + at * outBytes;
      const position = <usize>load<u32>(argPointer(args, 1) + (<usize>(first + row) << 2));
      const scale = queryScaleAt(args, position, argInt(args, 13));
      const table = argPointer(args, 2) + ((position * rope) << 2);
      rotate(q + (nope << 2), target + (latent << 2), table, rope, argInt(args, 12) != 0, scale);
      const scaled = scratch + QUERIES + ((<usize>row * nope) << 2);
      for (let i: usize = 0; i < nope << 2; i += 16) v128.store(scaled + i, f32x4.mul(v128.load(q + i), f32x4.splat(scale)));
      store<u32>(scratch + (<usize>row << 2), <u32>target);
    }
    for (let row = rows; row < BLOCK; row++) {
      store<u32>(scratch + (<usize>row << 2), load<u32>(scratch + (<usize>(rows - 1) << 2)));
    }
    const w = argPointer(args, 4) + head * headElements * weightSize(dtype);
    if (dtype == BF16) absorb<u16>(w, nope, latent, rows, scratch);
    else if (dtype == F16) absorb<i16>(w, nope, latent, rows, scratch);
    else absorb<f32>(w, nope, latent, rows, scratch);
  }
}

/**
 * Items are tokens. Buffers: q, positions, rotaryTable, queryScale, qOut, rowCount; scalars: heads, d_n, d_r,
 * interleaved, has queryScale.
 */
export function mlaPrologueRotate(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const heads = argInt(args, 6);
  const nopeBytes = <usize>argInt(args, 7) << 2;
  const rope = <usize>argInt(args, 8);
  const headBytes = nopeBytes + (rope << 2);
  const rows = min(end, load<i32>(argPointer(args, 5)));
  for (let row = begin; row < rows; row++) {
    const position = <usize>load<u32>(argPointer(args, 1) + (<usize>row << 2));
    const scale = queryScaleAt(args, position, argInt(args, 10));
    const table = argPointer(args, 2) + ((position * rope) << 2);
    for (let head = 0; head < heads; head++) {
      const at = <usize>(row * heads + head) * headBytes;
      const q = argPointer(args, 0) + at;
      const out = argPointer(args, 4) + at;
      for (let i: usize = 0; i < nopeBytes; i += 16) {
        v128.store(out + i, f32x4.mul(v128.load(q + i), f32x4.splat(scale)));
      }
      rotate(q + nopeBytes, out + nopeBytes, table, rope, argInt(args, 9) != 0, scale);
    }
  }
}
