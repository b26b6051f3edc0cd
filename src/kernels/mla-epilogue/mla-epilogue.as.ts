import { mergeSplits } from "../common/attention-merge.as";
import { rowBytesOf } from "../common/gemm.as";
import { dotFour } from "../common/latent-rows.as";
import { argInt, argPointer } from "../common/simd.as";

/** Tokens of an item: they share the reading of the head's weights. */
const TOKENS: i32 = 8;

/**
 * Items are (block of 8 tokens, head). Buffers: partials, batchCount, kvB, out; scalars: latent, heads, sQ, splits,
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
        splits, latent, scratch + <usize>i * latentBytes,
      );
    }
    if (count > 0) project(args, head, first, count, scratch);
  }
}

/** out[first + i, head] = W_UV of `head` times row i of the `count` latent rows in scratch. */
function project(args: usize, head: i32, first: i32, count: i32, scratch: usize): void {
  const latent = argInt(args, 4), heads = argInt(args, 5), dtype = argInt(args, 11);
  const nope = argInt(args, 12), value = argInt(args, 13);
  const rowBytes = rowBytesOf(dtype, latent);
  const weights = argPointer(args, 2) + <usize>(head * (nope + value) + nope) * rowBytes;
  const out = argPointer(args, 3) + (<usize>((first * heads + head) * value) << 2);
  const outStride = <usize>(heads * value) << 2;
  const latentBytes = <usize>latent << 2;
  const tiles = (value + 3) >> 2;
  for (let c = 0; c < tiles; c++) {
    const b = min(c + tiles, value - 1), d = min(c + 2 * tiles, value - 1), e = min(c + 3 * tiles, value - 1);
    const w0 = weights + <usize>c * rowBytes, w1 = weights + <usize>b * rowBytes;
    const w2 = weights + <usize>d * rowBytes, w3 = weights + <usize>e * rowBytes;
    for (let i = 0; i < count; i++) {
      const sums = dotFour(dtype, scratch + <usize>i * latentBytes, w0, w1, w2, w3, latent);
      const row = out + <usize>i * outStride;
      // A row past the last one is the last one again, with the same sum.
      store<f32>(row + (<usize>c << 2), f32x4.extract_lane(sums, 0));
      store<f32>(row + (<usize>b << 2), f32x4.extract_lane(sums, 1));
      store<f32>(row + (<usize>d << 2), f32x4.extract_lane(sums, 2));
      store<f32>(row + (<usize>e << 2), f32x4.extract_lane(sums, 3));
    }
  }
}
