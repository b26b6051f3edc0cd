import { mergedLogSumExp, mergeSplits } from "../common/attention-merge.as";
import {
  DTYPE, findRows, HEADS, KEYS, KV_HEADS, lengthOf, LSE, OFFSET, OUT, PARTS, Q, queryRow, ROW_BLOCK, S_Q, scoreFactor,
  sequencesOf, VALUES, visibleEnd, visibleStart, WIDTH, WORKSPACE,
} from "../common/attention-record.as";
import { addRow, scoreRow } from "../common/attention-row.as";
import { accumulateTile, LOWEST, packQueryPair, scoreTile, softmaxStep } from "../common/attention-tile.as";
import { TILE, widenTile } from "../common/latent-tile.as";
import { argInt, argPointer } from "../common/simd.as";

/** Tokens of a split at least, as in attention-decode.ts. */
const LEAST_SPLIT: i32 = 256;
/** Tokens between two steps of the softmax of a lone row: four pages of the usual size, read side by side. */
const ROW_TILE: i32 = 256;

/** Sets scores outside `from`…`to` of `padded` to −∞. */
// @ts-ignore: decorator
@inline
function maskScores(scores: usize, from: i32, to: i32, padded: i32): void {
  for (let t = 0; t < min(from, padded); t++) store<f32>(scores + (<usize>t << 2), -Infinity);
  for (let t = max(to, 0); t < padded; t++) store<f32>(scores + (<usize>t << 2), -Infinity);
}

/** The one row `row` of key head `head` over positions `from`…`to`: keys and values as they are stored. */
function attendRow(args: usize, sequence: i32, head: i32, row: i32, from: i32, to: i32, state: usize, q: usize, out: usize): void {
  const width = argInt(args, WIDTH);
  const scores = out + (<usize>width << 2);
  const source = argPointer(args, Q) + <usize>((sequence * argInt(args, S_Q) * argInt(args, HEADS) + queryRow(args, head, row)) * width) * 4;
  const factor = scoreFactor(args);
  for (let i: usize = 0; i < <usize>width << 2; i += 16) v128.store(q + i, f32x4.mul(v128.load(source + i), factor));
  for (let t = from, end = 0; t < to; t = end) {
    end = min((t & -TILE) + ROW_TILE, to);
    const padded = (end - t + 3) & ~3;
    scoreRow(args, q, sequence, head, t, end, scores);
    maskScores(scores, 0, end - t, padded);
    softmaxStep(scores, padded, state, out, width);
    addRow(args, scores, sequence, head, t, end, out);
  }
}

/** Rows `first`…`first + rows` of key head `head` over positions `from`…`to`: keys and values widened once for all. */
function attendRows(
  args: usize, sequence: i32, head: i32, first: i32, rows: i32, length: i32, from: i32, to: i32, state: usize, q: usize, out: usize,
): void {
  const width = argInt(args, WIDTH), dtype = argInt(args, DTYPE), rowBlock = <usize>((argInt(args, ROW_BLOCK) + 1) & ~1);
  const group = argInt(args, HEADS) / argInt(args, KV_HEADS);
  const scores = out + rowBlock * (<usize>width << 2);
  const entries = scores + rowBlock * (TILE << 2);
  const tile = entries + (TILE << 2);
  const pairs = (rows + 1) >> 1;
  const factor = scoreFactor(args);
  const base = argPointer(args, Q) + <usize>(sequence * argInt(args, S_Q) * argInt(args, HEADS) * width) * 4;
  for (let i = 0; i < rows; i += 2) {
    const a = base + <usize>(queryRow(args, head, first + i) * width) * 4;
    const b = base + <usize>(queryRow(args, head, first + min(i + 1, rows - 1)) * width) * 4;
    packQueryPair(a, b, width, factor, q + <usize>(i * width) * 4);
  }
  for (let t = from; t < to; t += TILE) {
    const count = min(TILE, to - t);
    const padded = (count + 3) & ~3;
    findRows(args, argPointer(args, KEYS), sequence, head, t, t + count, entries);
    widenTile(entries, count, dtype, width, 0, tile);
    scoreTile(q, pairs, tile, count, width, scores);
    for (let i = 0; i < rows; i++) {
      const row = scores + <usize>(i * TILE) * 4;
      const token = (first + i) / group;
      maskScores(row, visibleStart(args, length, token) - t, min(count, visibleEnd(args, length, token) - t), padded);
      softmaxStep(row, padded, state + (<usize>i << 3), out + <usize>(i * width) * 4, width);
    }
    findRows(args, argPointer(args, VALUES), sequence, head, t, t + count, entries);
    widenTile(entries, count, dtype, width, 0, tile);
    accumulateTile(scores, pairs, tile, count, width, out);
  }
}

/**
 * The split stage. Items are (sequence, split, key head, block of rows); PARTS is the number of splits, OFFSET that of the
 * statistics. The workspace holds f32 [batch, splits, sQ · heads, width] of unnormalised outputs, then [.., 2] of base-2 maximum
 * and sum; a sum of 0 says that nothing was seen and no output written.
 */
export function attentionDecodePartial(args: usize, begin: i32, end: i32, scratch: usize): void {
  const width = argInt(args, WIDTH), heads = argInt(args, HEADS), kvHeads = argInt(args, KV_HEADS), sQ = argInt(args, S_Q);
  const splits = argInt(args, PARTS), rowBlock = argInt(args, ROW_BLOCK);
  const group = heads / kvHeads, span = sQ * group;
  const blocks = (span + rowBlock - 1) / rowBlock;
  const limit = sequencesOf(args);
  const partials = argPointer(args, WORKSPACE), stats = partials + <usize>argInt(args, OFFSET) * 4;
  const rowBytes = <usize>width << 2;
  const state = scratch, q = state + <usize>((rowBlock + 1) & ~1) * 8;
  const out = q + <usize>((rowBlock + 1) & ~1) * rowBytes;
  for (let item = begin; item < end; item++) {
    const block = item % blocks;
    const head = (item / blocks) % kvHeads;
    const split = (item / (blocks * kvHeads)) % splits;
    const sequence = item / (blocks * kvHeads * splits);
    if (sequence >= limit) return;
    const first = block * rowBlock, rows = min(rowBlock, span - first);
    const length = lengthOf(args, sequence);
    const lowest = visibleStart(args, length, 0) & -TILE;
    const perSplit = max(LEAST_SPLIT, ((length - lowest + splits - 1) / splits + TILE - 1) & -TILE);
    const begins = max(lowest + split * perSplit, visibleStart(args, length, first / group) & -TILE);
    const ends = min(lowest + (split + 1) * perSplit, visibleEnd(args, length, (first + rows - 1) / group));
    for (let i = 0; i < rows; i++) {
      store<f32>(state + (<usize>i << 3), LOWEST);
      store<f32>(state + (<usize>i << 3), 0, 4);
    }
    const result = (sequence * splits + split) * sQ * heads;
    if (begins < ends) {
      memory.fill(out, 0, <usize>((rows + 1) & ~1) * rowBytes);
      if (rows == 1) attendRow(args, sequence, head, first, max(begins, visibleStart(args, length, first / group)), ends, state, q, out);
      else attendRows(args, sequence, head, first, rows, length, begins, ends, state, q, out);
    }
    for (let i = 0; i < rows; i++) {
      const row = <usize>(result + queryRow(args, head, first + i));
      memory.copy(stats + (row << 3), state + (<usize>i << 3), 8);
      if (begins < ends) memory.copy(partials + row * rowBytes, out + <usize>i * rowBytes, rowBytes);
    }
  }
}

/** The merge. Items are rows of [batch, sQ · heads]; PARTS and OFFSET as above. */
export function attentionDecodeMerge(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const rows = argInt(args, S_Q) * argInt(args, HEADS), width = argInt(args, WIDTH), splits = argInt(args, PARTS);
  const limit = sequencesOf(args);
  const partials = argPointer(args, WORKSPACE), stats = partials + <usize>argInt(args, OFFSET) * 4;
  const rowBytes = <usize>width << 2;
  for (let item = begin; item < end; item++) {
    if (item / rows >= limit) return;
    const result = <usize>((item / rows) * splits * rows + (item % rows));
    const stat = stats + (result << 3), statStride = <usize>rows << 3;
    const sum = mergeSplits(
      partials + result * rowBytes, <usize>rows * rowBytes, stat, statStride, splits, width,
      argPointer(args, OUT) + <usize>item * rowBytes,
    );
    store<f32>(argPointer(args, LSE) + (<usize>item << 2), mergedLogSumExp(stat, statStride, splits, sum));
  }
}
