import { narrowBf16, narrowF16 } from "../common/narrow.as";
import { argInt, argPointer } from "../common/simd.as";

/** Buffers, then scalars. */
const QKV = 0, POSITIONS = 1, TABLE = 2, SLOTS = 3, KEYS = 4, VALUES = 5, Q_OUT = 6, ROW_COUNT = 7;
const HEADS = 8, KV_HEADS = 9, WIDTH = 10, DTYPE = 11, PAGE_SIZE = 12, CACHE_ROWS = 13;

/** Rotates channels i and i + width / 2 of `source` by the cosines, then sines, at `table`. */
function rotate(source: usize, table: usize, width: i32, target: usize): void {
  const half = <usize>width << 1;
  for (let i: usize = 0; i < half; i += 16) {
    const a = v128.load(source + i), b = v128.load(source + half + i);
    const cos = v128.load(table + i), sin = v128.load(table + half + i);
    v128.store(target + i, f32x4.sub(f32x4.mul(a, cos), f32x4.mul(b, sin)));
    v128.store(target + half + i, f32x4.add(f32x4.mul(b, cos), f32x4.mul(a, sin)));
  }
}

/** Rounds `width` floats into their place in a pool. */
function storeRow(source: usize, width: i32, dtype: i32, target: usize): void {
  if (dtype == 0) {
    memory.copy(target, source, <usize>width << 2);
    return;
  }
  for (let i: usize = 0; i < <usize>width; i++) {
    const value = load<f32>(source + (i << 2));
    store<u16>(target + (i << 1), dtype == 1 ? narrowF16(value) : narrowBf16(value));
  }
}

/** Items are tokens; scratch holds one rotated key. */
export function attentionPrologue(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = argInt(args, HEADS), kvHeads = argInt(args, KV_HEADS), width = argInt(args, WIDTH);
  const dtype = argInt(args, DTYPE), pageSize = argInt(args, PAGE_SIZE);
  const headBytes = <usize>width << 2;
  const stored = <usize>width << (dtype == 0 ? 2 : 1);
  const rows = min(end, load<i32>(argPointer(args, ROW_COUNT)));
  for (let row = begin; row < rows; row++) {
    const source = argPointer(args, QKV) + <usize>row * <usize>(heads + 2 * kvHeads) * headBytes;
    const position = load<i32>(argPointer(args, POSITIONS) + (<usize>row << 2));
    const table = argPointer(args, TABLE) + <usize>position * headBytes;
    const out = argPointer(args, Q_OUT) + <usize>row * <usize>heads * headBytes;
    for (let head: usize = 0; head < <usize>heads; head++) rotate(source + head * headBytes, table, width, out + head * headBytes);
    const slot = load<i32>(argPointer(args, SLOTS) + (<usize>row << 2));
    if (<u32>slot >= <u32>argInt(args, CACHE_ROWS)) continue;
    const keys = source + <usize>heads * headBytes, values = keys + <usize>kvHeads * headBytes;
    for (let head = 0; head < kvHeads; head++) {
      const place = <usize>(((slot / pageSize) * kvHeads + head) * pageSize + (slot % pageSize)) * stored;
      rotate(keys + <usize>head * headBytes, table, width, scratch);
      storeRow(scratch, width, dtype, argPointer(args, KEYS) + place);
      storeRow(values + <usize>head * headBytes, width, dtype, argPointer(args, VALUES) + place);
    }
  }
}
