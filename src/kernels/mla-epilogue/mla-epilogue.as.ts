import { mergeSplits } from "../common/attention-merge.as";
import { rowBytesOf, storeLanes } from "../common/gemm.as";
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
  const sink = scratch + <usize>TOKENS * latentBytes;
  for (let c = 0; c < value; c += 4) {
    const source = weights + <usize>c * rowBytes;
    const columns = min(4, value - c);
    // Reads ahead the next four rows, where the head has them and no token has read them yet.
    let next = c + 8 <= value ? source + 4 * rowBytes : scratch;
    for (let i = 0; i < count; i++) {
      const sums = dotFour(dtype, scratch + <usize>i * latentBytes, source, rowBytes, columns - 1, latent, next, sink);
      storeLanes(out + (<usize>c << 2) + <usize>i * outStride, sums, columns);
      next = scratch;
    }
  }
}
