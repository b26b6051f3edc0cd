// What the machine can do at most: a streaming read, and independent multiply-adds in registers.
import { argInt, argPointer, multiplyAdd } from "../kernels/common/simd.as";

/**
 * Items are chunks, each read as four streams, a quarter of it apart: one stream alone reaches 60 % of that. Buffers: source,
 * sums (16 bytes an item); scalars: chunkBytes (a multiple of 256).
 */
export function benchRead(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const bytes = <usize>argInt(args, 2), quarter = bytes >> 2;
  for (let item = begin; item < end; item++) {
    const first = argPointer(args, 0) + <usize>item * bytes;
    let a = i32x4.splat(0), b = a, c = a, d = a;
    for (let at = first; at < first + quarter; at += 64) {
      for (let line = at; line < at + bytes; line += quarter) {
        a = v128.xor(a, v128.load(line));
        b = v128.xor(b, v128.load(line, 16));
        c = v128.xor(c, v128.load(line, 32));
        d = v128.xor(d, v128.load(line, 48));
      }
    }
    v128.store(argPointer(args, 1) + (<usize>item << 4), v128.xor(v128.xor(a, b), v128.xor(c, d)));
  }
}

/**
 * Items are runs of `count` steps of a register tile: four vectors from the first-level cache, each times two in registers,
 * added to eight sums, 64 FLOPs a step. V8 loads first and computes then, so sums, factors and loaded vectors have to
 * fit the 15 registers it gives out; and a sum has to be the addend, or it moves it first. Buffers: sums (16 bytes an
 * item); scalars: count.
 */
export function benchMultiplyAdd(args: usize, begin: i32, end: i32, scratch: usize): void {
  const count = argInt(args, 1);
  for (let i: usize = 0; i < 4096; i += 4) store<f32>(scratch + i, <f32>1e-6 * <f32>(i + 1));
  const x = v128.load(scratch, 256), y = v128.load(scratch, 512);
  for (let item = begin; item < end; item++) {
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    for (let step = 0; step < count; step++) {
      const at = scratch + (<usize>(step & 31) << 6);
      let v = v128.load(at);
      a0 = multiplyAdd(v, x, a0);
      b0 = multiplyAdd(v, y, b0);
      v = v128.load(at, 16);
      a1 = multiplyAdd(v, x, a1);
      b1 = multiplyAdd(v, y, b1);
      v = v128.load(at, 32);
      a2 = multiplyAdd(v, x, a2);
      b2 = multiplyAdd(v, y, b2);
      v = v128.load(at, 48);
      a3 = multiplyAdd(v, x, a3);
      b3 = multiplyAdd(v, y, b3);
    }
    const a = f32x4.add(f32x4.add(a0, a1), f32x4.add(a2, a3));
    const b = f32x4.add(f32x4.add(b0, b1), f32x4.add(b2, b3));
    v128.store(argPointer(args, 0) + (<usize>item << 4), f32x4.add(a, b));
  }
}
