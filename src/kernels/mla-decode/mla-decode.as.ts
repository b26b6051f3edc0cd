import { mergedLogSumExp, mergeSplits } from "../common/attention-merge.as";
import {
  accumulateOddRow, accumulateTile, LOWEST, packQueryPair, scoreOddRow, scoreTile, softmaxStep,
} from "../common/attention-tile.as";
import { latentEntrySize } from "../common/latent.as";
import { TILE, widenTile } from "../common/latent-tile.as";
import { argFloat, argInt, argPointer } from "../common/simd.as";

/** Tokens of a split at least; mla-decode.ts and the README explain. */
const LEAST_SPLIT: i32 = 256;

/** Buffers, then scalars, of the split stage. */
const Q = 0, CACHE = 1, TABLE = 2, LENGTHS = 3, BATCH = 4, PARTIALS = 5;
const DTYPE = 6, PAGE_SIZE = 7, PAGES = 8, TABLE_WIDTH = 9, LATENT = 10, ROPE = 11, S_Q = 12, HEADS = 13;
const SPLITS = 14, ROW_BLOCK = 15, MODE = 16, SCALE = 17, STATS = 18, COUNTED = 19;
/** Modes: all tokens, causal, the tokens that `indices` names. */
const CAUSAL = 1, SPARSE = 2;

/** Packs `rows` query rows in pairs, times scale·log2(e): scores come out in base 2. An odd last row is its own partner. */
function loadQueries(q: usize, rows: i32, width: i32, scale: f32, target: usize): void {
  const factor = f32x4.splat(scale * <f32>1.4426950408889634);
  const rowBytes = <usize>width << 2;
  for (let i = 0; i < rows; i += 2) {
    const row = q + <usize>i * rowBytes;
    packQueryPair(row, i + 1 < rows ? row + rowBytes : row, width, factor, target + <usize>i * rowBytes);
  }
}

/** Addresses of the wanted entries among positions `from`…`to` of a table row; returns how many. */
function findEntries(args: usize, tableRow: usize, from: i32, to: i32, target: usize): i32 {
  const pageSize = argInt(args, PAGE_SIZE);
  const slots = <u32>(argInt(args, PAGES) * pageSize);
  const entryBytes = latentEntrySize(argInt(args, DTYPE), argInt(args, LATENT), argInt(args, ROPE));
  const sparse = argInt(args, MODE) == SPARSE;
  const cache = argPointer(args, CACHE);
  let count = 0;
  if (sparse) {
    for (let t = from; t < to; t++) {
      const slot = load<i32>(tableRow + (<usize>t << 2));
      if (<u32>slot >= slots) continue;
      store<usize>(target + (<usize>count << 2), cache + <usize>slot * entryBytes);
      count++;
    }
    return count;
  }
  for (let t = from; t < to; ) {
    const page = t / pageSize, end = min((page + 1) * pageSize, to);
    const slot = load<i32>(tableRow + (<usize>page << 2)) * pageSize + t - page * pageSize;
    let entry = cache + <usize>slot * entryBytes;
    for (; t < end; t++, entry += entryBytes) {
      store<usize>(target, entry);
      target += 4;
    }
  }
  return to - from;
}

/** Position past the last token that query row `row` may see. */
// @ts-ignore: decorator
@inline
function visibleEnd(args: usize, length: i32, row: i32): i32 {
  if (argInt(args, MODE) != CAUSAL) return length;
  return length - argInt(args, S_Q) + 1 + row / argInt(args, HEADS);
}

/** Sets scores from `from` up to the next multiple of 4 past `to` to −∞. */
// @ts-ignore: decorator
@inline
function maskScores(scores: usize, from: i32, to: i32): void {
  for (let t = max(from, 0); t < to; t++) store<f32>(scores + (<usize>t << 2), -Infinity);
}

/** Attends rows `first`…`first + rows` of one sequence to its positions `from`…`to`; results stay in scratch. */
function attend(
  args: usize, tableRow: usize, length: i32, from: i32, to: i32, first: i32, rows: i32, q: usize, state: usize, out: usize,
): void {
  const latent = argInt(args, LATENT), rope = argInt(args, ROPE), rowBlock = <usize>argInt(args, ROW_BLOCK);
  const scores = out + rowBlock * (<usize>latent << 2);
  const entries = scores + rowBlock * (TILE << 2);
  const tile = entries + (TILE << 2);
  const sparse = argInt(args, MODE) == SPARSE;
  const pairs = rows >> 1, last = <usize>(rows - 1);
  for (let t = from; t < to; t += TILE) {
    const count = findEntries(args, tableRow, t, min(t + TILE, to), entries);
    if (count == 0) continue;
    const padded = (count + 3) & ~3;
    widenTile(entries, count, argInt(args, DTYPE), latent, rope, tile);
    scoreTile(q, pairs, tile, count, latent + rope, scores);
    if (rows & 1) scoreOddRow(q + last * (<usize>(latent + rope) << 2), tile, count, latent + rope, scores + last * (TILE << 2));
    for (let i = 0; i < rows; i++) {
      const row = scores + <usize>(i * TILE) * 4;
      maskScores(row, sparse ? count : min(count, visibleEnd(args, length, first + i) - t), padded);
      softmaxStep(row, padded, state + (<usize>i << 3), out + <usize>(i * latent) * 4, latent);
    }
    accumulateTile(scores, pairs, tile, count, latent, out);
    if (rows & 1) accumulateOddRow(scores + last * (TILE << 2), tile, count, latent, out + last * (<usize>latent << 2));
  }
}

/**
 * The split stage. Items are (sequence, split, block of query rows). Buffers: q, cache, table (block table or indices),
 * lengths, batchCount, partials; scalars in the order above. Partials: f32 [items' splits, rows, latent] of unnormalised
 * outputs, then [splits, rows, 2] of base-2 max and sum; a sum of 0 says that nothing was seen and no output written.
 */
export function mlaDecodePartial(args: usize, begin: i32, end: i32, scratch: usize): void {
  const latent = argInt(args, LATENT), width = latent + argInt(args, ROPE);
  const heads = argInt(args, HEADS), totalRows = argInt(args, S_Q) * heads;
  const splits = argInt(args, SPLITS), rowBlock = argInt(args, ROW_BLOCK);
  const sparse = argInt(args, MODE) == SPARSE;
  const span = sparse ? heads : totalRows;
  const blocksOfSpan = (span + rowBlock - 1) / rowBlock;
  const blocks = sparse ? blocksOfSpan * argInt(args, S_Q) : blocksOfSpan;
  const batchLimit = argInt(args, COUNTED) ? load<i32>(argPointer(args, BATCH)) : i32.MAX_VALUE;
  const tableWidth = argInt(args, TABLE_WIDTH);
  const stats = argPointer(args, PARTIALS) + <usize>argInt(args, STATS) * 4;
  const state = scratch;
  const q = state + (<usize>rowBlock << 3);
  const out = q + <usize>(rowBlock * width) * 4;
  for (let item = begin; item < end; item++) {
    const block = item % blocks;
    const split = (item / blocks) % splits;
    const sequence = item / (blocks * splits);
    if (sequence >= batchLimit) return;
    const token = sparse ? block / blocksOfSpan : 0;
    const inSpan = (block % blocksOfSpan) * rowBlock;
    const first = token * heads + inSpan;
    const rows = min(rowBlock, span - inSpan);
    const length = sparse ? tableWidth : min(load<i32>(argPointer(args, LENGTHS) + (<usize>sequence << 2)), tableWidth * argInt(args, PAGE_SIZE));
    const perSplit = max(LEAST_SPLIT, ((length + splits - 1) / splits + TILE - 1) & -TILE);
    const tableIndex = sparse ? sequence * argInt(args, S_Q) + token : sequence;
    const tableRow = argPointer(args, TABLE) + <usize>(tableIndex * tableWidth) * 4;
    const to = min((split + 1) * perSplit, visibleEnd(args, length, first + rows - 1));
    for (let i = 0; i < rows; i++) {
      store<f32>(state + (<usize>i << 3), LOWEST);
      store<f32>(state + (<usize>i << 3), 0, 4);
    }
    const firstResult = (sequence * splits + split) * totalRows + first;
    if (split * perSplit < to) {
      loadQueries(argPointer(args, Q) + <usize>((sequence * totalRows + first) * width) * 4, rows, width, argFloat(args, SCALE), q);
      memory.fill(out, 0, <usize>(rows * latent) * 4);
      attend(args, tableRow, length, split * perSplit, to, first, rows, q, state, out);
      memory.copy(argPointer(args, PARTIALS) + <usize>firstResult * <usize>latent * 4, out, <usize>(rows * latent) * 4);
    }
    memory.copy(stats + (<usize>firstResult << 3), state, <usize>rows << 3);
  }
}

/** The merge. Items are query rows. Buffers: partials, batchCount, out, lse; scalars: latent, rows, splits, stats, counted. */
export function mlaDecodeMerge(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const latent = argInt(args, 4), rows = argInt(args, 5), splits = argInt(args, 6);
  const limit = argInt(args, 8) ? load<i32>(argPointer(args, 1)) * rows : i32.MAX_VALUE;
  const stats = argPointer(args, 0) + <usize>argInt(args, 7) * 4;
  for (let item = begin; item < min(end, limit); item++) {
    const result = <usize>((item / rows) * splits * rows + (item % rows));
    const stat = stats + (result << 3), statStride = <usize>rows << 3;
    const sum = mergeSplits(
      argPointer(args, 0) + result * <usize>latent * 4, <usize>(rows * latent) * 4, stat, statStride,
      splits, latent, argPointer(args, 2) + <usize>(item * latent) * 4,
    );
    store<f32>(argPointer(args, 3) + (<usize>item << 2), mergedLogSumExp(stat, statStride, splits, sum));
  }
}
