// Arguments of attention over keys and values, in the order of attention-record.ts, and what follows from them.
import { argFloat, argInt, argPointer } from "./simd.as";

/** Buffers. */
export const Q: i32 = 0, KEYS: i32 = 1, VALUES: i32 = 2, TABLE: i32 = 3, LENGTHS: i32 = 4, BATCH: i32 = 5;
export const WORKSPACE: i32 = 6, OUT: i32 = 7, LSE: i32 = 8;
/** Scalars. PARTS and OFFSET are a launch's own. */
export const DTYPE: i32 = 9, PAGE_SIZE: i32 = 10, TABLE_WIDTH: i32 = 11, S_Q: i32 = 12, HEADS: i32 = 13, KV_HEADS: i32 = 14;
export const WIDTH: i32 = 15, ROW_BLOCK: i32 = 16, CAUSAL: i32 = 17, WINDOW: i32 = 18, SCALE: i32 = 19, COUNTED: i32 = 20;
export const PARTS: i32 = 21, OFFSET: i32 = 22;

/** Sequences in use. */
export function sequencesOf(args: usize): i32 {
  return argInt(args, COUNTED) ? load<i32>(argPointer(args, BATCH)) : i32.MAX_VALUE;
}

/** Cached tokens of a sequence, never more than its table row has places. */
export function lengthOf(args: usize, sequence: i32): i32 {
  const length = load<i32>(argPointer(args, LENGTHS) + (<usize>sequence << 2));
  return min(length, argInt(args, TABLE_WIDTH) * argInt(args, PAGE_SIZE));
}

/** Position past the last token that query token `token` of `S_Q` sees; not positive where it sees none. */
// @ts-ignore: decorator
@inline
export function visibleEnd(args: usize, length: i32, token: i32): i32 {
  return argInt(args, CAUSAL) ? length - argInt(args, S_Q) + 1 + token : length;
}

/** Position of the first token that query token `token` sees. */
// @ts-ignore: decorator
@inline
export function visibleStart(args: usize, length: i32, token: i32): i32 {
  const window = argInt(args, WINDOW);
  return window == 0 ? 0 : max(0, visibleEnd(args, length, token) - window);
}

/** Bytes of one stored row of a head. */
// @ts-ignore: decorator
@inline
export function rowSize(args: usize): usize {
  return <usize>argInt(args, WIDTH) << (argInt(args, DTYPE) == 0 ? 2 : 1);
}

/** Address of the row of `position` of one head in `pool`, [pages, kvHeads, pageSize, width]. */
// @ts-ignore: decorator
@inline
export function rowAddress(args: usize, pool: usize, sequence: i32, position: i32, head: i32): usize {
  const pageSize = argInt(args, PAGE_SIZE);
  const entry = sequence * argInt(args, TABLE_WIDTH) + position / pageSize;
  const page = load<i32>(argPointer(args, TABLE) + (<usize>entry << 2));
  const row = (page * argInt(args, KV_HEADS) + head) * pageSize + position % pageSize;
  return pool + <usize>row * rowSize(args);
}

/** Row `row` of those that share the key head `head`, as a row of [S_Q, HEADS]. */
// @ts-ignore: decorator
@inline
export function queryRow(args: usize, head: i32, row: i32): i32 {
  const group = argInt(args, HEADS) / argInt(args, KV_HEADS);
  return (row / group) * argInt(args, HEADS) + head * group + row % group;
}

/** Scale of scores in base 2. */
// @ts-ignore: decorator
@inline
export function scoreFactor(args: usize): v128 {
  return f32x4.splat(argFloat(args, SCALE) * <f32>1.4426950408889634);
}

/** Addresses of the rows of positions `from`…`to` of one head. */
export function findRows(args: usize, pool: usize, sequence: i32, head: i32, from: i32, to: i32, target: usize): void {
  for (let t = from; t < to; t++, target += sizeof<usize>()) {
    store<usize>(target, rowAddress(args, pool, sequence, t, head));
  }
}
