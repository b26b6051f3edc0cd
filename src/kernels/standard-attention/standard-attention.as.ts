import {
  DTYPE, findRows, HEADS, KEYS, KV_HEADS, lengthOf, LSE, OFFSET, OUT, PARTS, Q, queryRow, ROW_BLOCK, S_Q,
  scoreFactor, sequencesOf, VALUES, visibleEnd, visibleStart, WIDTH, WORKSPACE,
} from "../common/attention-record.as";
import { addRow, scoreRow } from "../common/attention-row.as";
import { accumulateTile, exp2Lanes, naturalLog, packQueryPair, scoreTile } from "../common/attention-tile.as";
import { TILE, widenTile } from "../common/latent-tile.as";
import { argInt, argPointer, sumLanes } from "../common/simd.as";

/** Tokens of an item of the score stage, as in standard-attention.ts. */
const CHUNK: i32 = 256;

/** Address of the scores of a row of [batch, sQ · heads]; OFFSET floats a row. */
// @ts-ignore: decorator
@inline
function scoresOf(args: usize, row: i32): usize {
  return argPointer(args, WORKSPACE) + <usize>row * <usize>argInt(args, OFFSET) * 4;
}

/** Cached tokens of a sequence, never more than a row of scores holds. */
// @ts-ignore: decorator
@inline
function scoredLength(args: usize, sequence: i32): i32 {
  return min(lengthOf(args, sequence), argInt(args, OFFSET));
}

/** Address of a query row of [batch, sQ · heads]. */
// @ts-ignore: decorator
@inline
function queryOf(args: usize, row: i32): usize {
  return argPointer(args, Q) + <usize>row * (<usize>argInt(args, WIDTH) << 2);
}

/** Scores of rows `first`…`first + rows` of a key head, tile by tile. */
function scoreRows(args: usize, sequence: i32, head: i32, first: i32, rows: i32, from: i32, to: i32, scratch: usize): void {
  const width = argInt(args, WIDTH);
  const base = sequence * argInt(args, S_Q) * argInt(args, HEADS);
  const rowBytes = <usize>width << 2;
  const even = <usize>((rows + 1) & ~1);
  const scores = scratch + even * rowBytes;
  const entries = scores + even * (TILE << 2);
  const tile = entries + (TILE << 2);
  for (let i = 0; i < rows; i += 2) {
    const a = queryOf(args, base + queryRow(args, head, first + i));
    const b = queryOf(args, base + queryRow(args, head, first + min(i + 1, rows - 1)));
    packQueryPair(a, b, width, scoreFactor(args), scratch + <usize>i * rowBytes);
  }
  for (let t = from; t < to; t += TILE) {
    const count = min(TILE, to - t);
    findRows(args, argPointer(args, KEYS), sequence, head, t, t + count, entries);
    widenTile(entries, count, argInt(args, DTYPE), width, 0, tile);
    scoreTile(scratch, (rows + 1) >> 1, tile, count, width, scores);
    for (let i = 0; i < rows; i++) {
      const target = scoresOf(args, base + queryRow(args, head, first + i)) + (<usize>t << 2);
      memory.copy(target, scores + <usize>(i * TILE) * 4, <usize>count << 2);
    }
  }
}

/** Scores of the one row `row` of a key head, keys as they are stored. */
function scoreOne(args: usize, sequence: i32, head: i32, row: i32, from: i32, to: i32, scratch: usize): void {
  const index = sequence * argInt(args, S_Q) * argInt(args, HEADS) + queryRow(args, head, row);
  const source = queryOf(args, index);
  const factor = scoreFactor(args);
  for (let i: usize = 0; i < <usize>argInt(args, WIDTH) << 2; i += 16) {
    v128.store(scratch + i, f32x4.mul(v128.load(source + i), factor));
  }
  scoreRow(args, scratch, sequence, head, from, to, scoresOf(args, index) + (<usize>from << 2));
}

/**
 * Scores in base 2. Items are (sequence, chunk of 256 tokens, key head, block of rows); PARTS is the number of chunks, OFFSET the
 * floats of a row of scores in the workspace [batch, sQ · heads, OFFSET].
 */
export function standardAttentionScore(args: usize, begin: i32, end: i32, scratch: usize): void {
  const kvHeads = argInt(args, KV_HEADS), chunks = argInt(args, PARTS), rowBlock = argInt(args, ROW_BLOCK);
  const span = (argInt(args, S_Q) * argInt(args, HEADS)) / kvHeads;
  const blocks = (span + rowBlock - 1) / rowBlock;
  const limit = sequencesOf(args);
  for (let item = begin; item < end; item++) {
    const first = (item % blocks) * rowBlock;
    const head = (item / blocks) % kvHeads;
    const chunk = (item / (blocks * kvHeads)) % chunks;
    const sequence = item / (blocks * kvHeads * chunks);
    if (sequence >= limit) return;
    const from = chunk * CHUNK, to = min(from + CHUNK, scoredLength(args, sequence));
    if (from >= to) continue;
    const rows = min(rowBlock, span - first);
    if (rows == 1) scoreOne(args, sequence, head, first, from, to, scratch);
    else scoreRows(args, sequence, head, first, rows, from, to, scratch);
  }
}

/** Turns the base-2 scores `from`…`to` of a row into probabilities and returns their log-sum-exp. */
function softmax(scores: usize, from: i32, to: i32): f32 {
  let highest: f32 = -Infinity;
  for (let t = from; t < to; t++) highest = max(highest, load<f32>(scores + (<usize>t << 2)));
  const shift = f32x4.splat(highest);
  let sums = f32x4.splat(0);
  let t = from;
  for (; t + 4 <= to; t += 4) {
    const p = exp2Lanes(f32x4.sub(v128.load(scores + (<usize>t << 2)), shift));
    v128.store(scores + (<usize>t << 2), p);
    sums = f32x4.add(sums, p);
  }
  let sum = sumLanes(sums);
  for (; t < to; t++) {
    const p = f32x4.extract_lane(exp2Lanes(f32x4.splat(load<f32>(scores + (<usize>t << 2)) - highest)), 0);
    store<f32>(scores + (<usize>t << 2), p);
    sum += p;
  }
  const inverse = f32x4.splat(<f32>1 / sum);
  for (t = from; t + 4 <= to; t += 4) {
    const at = scores + (<usize>t << 2);
    v128.store(at, f32x4.mul(v128.load(at), inverse));
  }
  for (; t < to; t++) store<f32>(scores + (<usize>t << 2), load<f32>(scores + (<usize>t << 2)) / sum);
  return <f32>(<f64>highest * 0.6931471805599453 + naturalLog(<f64>sum));
}

/** The softmax. Items are rows of [batch, sQ · heads]; tokens that a row does not see get the probability 0. */
export function standardAttentionSoftmax(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const heads = argInt(args, HEADS), rows = argInt(args, S_Q) * heads;
  const limit = sequencesOf(args);
  for (let item = begin; item < end; item++) {
    if (item / rows >= limit) return;
    const length = scoredLength(args, item / rows), token = (item % rows) / heads;
    const to = max(0, visibleEnd(args, length, token));
    const from = min(visibleStart(args, length, token), to);
    const scores = scoresOf(args, item);
    memory.fill(scores, 0, <usize>from << 2);
    memory.fill(scores + (<usize>to << 2), 0, <usize>(length - to) << 2);
    const lse = from < to ? softmax(scores, from, to) : <f32>Infinity;
    store<f32>(argPointer(args, LSE) + (<usize>item << 2), lse);
  }
}

/** Values of rows `first`…`first + rows` of a key head, `channels` of them from `channel` on, tile by tile. */
function sumRows(
  args: usize, sequence: i32, head: i32, first: i32, rows: i32, channel: i32, channels: i32, length: i32, scratch: usize,
): void {
  const width = argInt(args, WIDTH), dtype = argInt(args, DTYPE);
  const base = sequence * argInt(args, S_Q) * argInt(args, HEADS);
  const even = <usize>((rows + 1) & ~1);
  const p = scratch + even * (<usize>channels << 2);
  const entries = p + even * (TILE << 2);
  const tile = entries + (TILE << 2);
  memory.fill(scratch, 0, even * (<usize>channels << 2));
  memory.fill(p + <usize>rows * (TILE << 2), 0, (even - <usize>rows) * (TILE << 2));
  const pool = argPointer(args, VALUES) + (<usize>channel << (dtype == 0 ? 2 : 1));
  for (let t = 0; t < length; t += TILE) {
    const count = min(TILE, length - t);
    findRows(args, pool, sequence, head, t, t + count, entries);
    widenTile(entries, count, dtype, channels, 0, tile);
    for (let i = 0; i < rows; i++) {
      const source = scoresOf(args, base + queryRow(args, head, first + i)) + (<usize>t << 2);
      memory.copy(p + <usize>(i * TILE) * 4, source, <usize>count << 2);
    }
    accumulateTile(p, <i32>(even >> 1), tile, count, channels, scratch);
  }
  for (let i = 0; i < rows; i++) {
    const target = <usize>((base + queryRow(args, head, first + i)) * width + channel) << 2;
    memory.copy(argPointer(args, OUT) + target, scratch + <usize>(i * channels) * 4, <usize>channels << 2);
  }
}

/**
 * The sums of values. Items are (sequence, key head, block of rows, block of channels); PARTS is the channels of a block: all of
 * them where a head has one row.
 */
export function standardAttentionValue(args: usize, begin: i32, end: i32, scratch: usize): void {
  const kvHeads = argInt(args, KV_HEADS), width = argInt(args, WIDTH), channels = argInt(args, PARTS);
  const rowBlock = argInt(args, ROW_BLOCK), sQ = argInt(args, S_Q), heads = argInt(args, HEADS);
  const span = (sQ * heads) / kvHeads;
  const blocks = (span + rowBlock - 1) / rowBlock, strips = width / channels;
  const limit = sequencesOf(args);
  for (let item = begin; item < end; item++) {
    const channel = (item % strips) * channels;
    const first = ((item / strips) % blocks) * rowBlock;
    const head = (item / (strips * blocks)) % kvHeads;
    const sequence = item / (strips * blocks * kvHeads);
    if (sequence >= limit) return;
    const rows = min(rowBlock, span - first), length = scoredLength(args, sequence);
    // Also for a block of one row that is left over: its strips are items of their own and may share no output.
    if (rowBlock > 1) {
      sumRows(args, sequence, head, first, rows, channel, channels, length, scratch);
      continue;
    }
    const row = sequence * sQ * heads + queryRow(args, head, first);
    const out = argPointer(args, OUT) + (<usize>(row * width) << 2);
    const token = first / (heads / kvHeads);
    const from = visibleStart(args, length, token), to = visibleEnd(args, length, token);
    memory.fill(out, 0, <usize>width << 2);
    addRow(args, scoresOf(args, row) + (<usize>from << 2), sequence, head, from, to, out);
  }
}
