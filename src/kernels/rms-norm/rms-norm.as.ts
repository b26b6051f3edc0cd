import { argFloat, argInt, argPointer, multiplyAdd, sumLanes } from "../common/simd.as";

/** Items are rows. Buffers: x, weight, out, rowCount; scalars: width (a multiple of 4), epsilon. */
export function rmsNorm(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const x = argPointer(args, 0);
  const weight = argPointer(args, 1);
  const out = argPointer(args, 2);
  const rows = min(end, load<i32>(argPointer(args, 3)));
  const rowBytes = <usize>argInt(args, 4) << 2;
  const epsilon = argFloat(args, 5);
  for (let row = begin; row < rows; row++) {
    const base = <usize>row * rowBytes;
    let squares = f32x4.splat(0);
    for (let i: usize = 0; i < rowBytes; i += 16) {
      const v = v128.load(x + base + i);
      squares = multiplyAdd(v, v, squares);
    }
    const mean = sumLanes(squares) / <f32>argInt(args, 4);
    const scale = f32x4.splat(<f32>1 / sqrt<f32>(mean + epsilon));
    for (let i: usize = 0; i < rowBytes; i += 16) {
      const normed = f32x4.mul(v128.load(x + base + i), scale);
      v128.store(out + base + i, f32x4.mul(normed, v128.load(weight + i)));
    }
  }
}
