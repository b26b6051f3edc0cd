import { argFloat, argInt, argPointer } from "../common/simd.as";
import { convertWeights, weightSize } from "../common/weights.as";

/**
 * Items are rows. Buffers: ids, table, out, rowCount; scalars: vocab, hidden (a multiple of 8), dtype, scale. An id
 * outside the table gives a row of zeros.
 */
export function embedding(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const rows = min(end, load<i32>(argPointer(args, 3)));
  const hidden = argInt(args, 5);
  const dtype = argInt(args, 6);
  const scale = f32x4.splat(argFloat(args, 7));
  const rowBytes = <usize>hidden * weightSize(dtype);
  for (let row = begin; row < rows; row++) {
    const id = load<u32>(argPointer(args, 0) + (<usize>row << 2));
    const out = argPointer(args, 2) + (<usize>row * <usize>hidden << 2);
    if (id >= <u32>argInt(args, 4)) {
      memory.fill(out, 0, <usize>hidden << 2);
      continue;
    }
    convertWeights(dtype, argPointer(args, 1) + <usize>id * rowBytes, hidden, out);
    for (let i: usize = 0; i < <usize>hidden << 2; i += 16) {
      v128.store(out + i, f32x4.mul(v128.load(out + i), scale));
    }
  }
}
