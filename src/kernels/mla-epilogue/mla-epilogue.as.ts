import { mergeSplits } from "../common/attention-merge.as";
import { rowBytesOf } from "../common/gemm.as";
import { dotFour } from "../common/latent-rows.as";
import { multiplyFourRows, multiplyTwoRows } from "../common/projection-tiles.as";
import { argInt, argPointer } from "../common/simd.as";
import { BF16, F16 } from "../common/weights.as";

/** Tokens of an item: they share the reading of the head's weights. */
const TOKENS: i32 = 4;
/** In scratch: the sums of a tile, f32 [4, 4], then the merged rows. */
const ROWS: usize = 64;

/**
 * Items are (block of 4 tokens, head). Buffers: partials, batchCount, kvB, out; scalars: latent, heads, sQ, splits,
 * statsOffset, counted, tokens, dtype, nope, value.
 */
export function mlaEpilogue(args: usize, begin: i32, end: i32, scratch: usize): void {
  const latent = argInt(args, 4), heads = argInt(args, 5), sQ = argInt(args, 6), splits = argInt(args, 7);
  const tokens = argInt(args, 9) ? min(argInt(args, 10), load<i32>(argPointer(args, 1)) * sQ) : argInt(args, 10);
  const partials = argPointer(args, 0), stats = partials + <usize>argInt(args, 8) * 4;
  const latentBytes = <usize>latent << 2;
  const rows = sQ * heads;
  for (let item = begin; item < end; item++) {
    const head = item % heads;
    const first = (item / heads) * TOKENS;
    const count = min(TOKENS, tokens - first);
    for (let i = 0; i < count; i++) {
      const token = first + i;
      const result = <usize>((token / sQ) * splits * rows + (token % sQ) * heads + head);
      mergeSplits(
        partials + result * latentBytes, <usize>rows * latentBytes, stats + (result << 3), <usize>rows << 3,
        splits, latent, scratch + ROWS + <usize>i * latentBytes,
      );
    }
    if (count > 0) project(args, head, first, count, scratch);
  }
}

/** Sums of 2–4 rows in scratch with four rows of W_UV, in the order of `dotFour`. */
function multiplyTile<T>(w0: usize, w1: usize, w2: usize, w3: usize, latent: i32, count: i32, scratch: usize): void {
  const latentBytes = <usize>latent << 2;
  const x0 = scratch + ROWS, x1 = x0 + latentBytes;
  if (count == 2) {
    multiplyTwoRows<T>(x0, x1, w0, w1, w2, w3, latent, scratch, true);
    return;
  }
  const x2 = x1 + latentBytes, x3 = count == 4 ? x2 + latentBytes : x2;
  multiplyFourRows<T>(x0, x1, x2, x3, w0, w1, latent, scratch, true);
  multiplyFourRows<T>(x0, x1, x2, x3, w2, w3, latent, scratch + 8, true);
}

/** out[first + i, head] = W_UV of `head` times row i of the `count` latent rows in scratch. */
function project(args: usize, head: i32, first: i32, count: i32, scratch: usize): void {
  const latent = argInt(args, 4), heads = argInt(args, 5), dtype = argInt(args, 11);
  const nope = argInt(args, 12), value = argInt(args, 13);
  const rowBytes = rowBytesOf(dtype, latent);
  const weights = argPointer(args, 2) + <usize>(head * (nope + value) + nope) * rowBytes;
  const out = argPointer(args, 3) + (<usize>((first * heads + head) * value) << 2);
  const outStride = <usize>(heads * value) << 2;
  const tiles = (value + 3) >> 2;
  for (let c = 0; c < tiles; c++) {
    const b = min(c + tiles, value - 1), d = min(c + 2 * tiles, value - 1), e = min(c + 3 * tiles, value - 1);
    const w0 = weights + <usize>c * rowBytes, w1 = weights + <usize>b * rowBytes;
    const w2 = weights + <usize>d * rowBytes, w3 = weights + <usize>e * rowBytes;
    if (count == 1) v128.store(scratch, dotFour(dtype, scratch + ROWS, w0, w1, w2, w3, latent));
    else if (dtype == BF16) multiplyTile<u16>(w0, w1, w2, w3, latent, count, scratch);
    else if (dtype == F16) multiplyTile<i16>(w0, w1, w2, w3, latent, count, scratch);
    else multiplyTile<f32>(w0, w1, w2, w3, latent, count, scratch);
    for (let i = 0; i < count; i++) {
      const sums = v128.load(scratch + (<usize>i << 4));
      const row = out + <usize>i * outStride;
      // A row past the last one is the last one again, with the same sum.
      store<f32>(row + (<usize>c << 2), f32x4.extract_lane(sums, 0));
      store<f32>(row + (<usize>b << 2), f32x4.extract_lane(sums, 1));
      store<f32>(row + (<usize>d << 2), f32x4.extract_lane(sums, 2));
      store<f32>(row + (<usize>e << 2), f32x4.extract_lane(sums, 3));
    }
  }
}
