import { exp2Lanes, LOWEST } from "../common/attention-tile.as";
import { latentEntrySize, loadLatentEntry } from "../common/latent.as";
import { packPanel, panelTile, panelTileAdd } from "../common/panels.as";
import { argFloat, argInt, argPointer, multiplyAdd } from "../common/simd.as";
import { F32, weightSize } from "../common/weights.as";

/** Cached tokens expanded at once; KEYS in mla-prefill.ts. */
const KEYS: i32 = 64;

// Arguments: buffers, then scalars, in the order of mla-prefill.ts.
const Q: i32 = 0;
const CACHE: i32 = 1;
const BLOCK_TABLE: i32 = 2;
const CACHE_SEQLENS: i32 = 3;
const KV_B: i32 = 4;
const OUT: i32 = 5;
const ROW_COUNT: i32 = 6;
const HEADS: i32 = 7;
const NOPE: i32 = 8;
const ROPE: i32 = 9;
const VALUE: i32 = 10;
const LATENT: i32 = 11;
const SCALE: i32 = 12;
const CACHE_DTYPE: i32 = 13;
const PAGE_SIZE: i32 = 14;
const WEIGHT_DTYPE: i32 = 15;
const MAX_ROWS: i32 = 16;
const PASS_ROWS: i32 = 17;

/** Packs `rows` rows of W (a multiple of 8) as panels. */
function packWeights(dtype: i32, source: usize, rows: i32, columns: i32, target: usize): void {
  const rowBytes = <usize>columns * weightSize(dtype);
  for (let row = 0; row < rows; row += 8) {
    packPanel(dtype, source + <usize>row * rowBytes, rowBytes, 8, columns, target);
    target += <usize>columns << 5;
  }
}

/** Packs cached tokens first…first+7 (zeros from `length` on) as a panel of d_c + d_r values; `rows` is room for 8. */
function packLatent(args: usize, first: i32, length: i32, rows: usize, target: usize): void {
  const latent = argInt(args, LATENT);
  const rope = argInt(args, ROPE);
  const dtype = argInt(args, CACHE_DTYPE);
  const pageSize = argInt(args, PAGE_SIZE);
  const entrySize = latentEntrySize(dtype, latent, rope);
  const rowBytes = <usize>(latent + rope) << 2;
  for (let i = 0; i < 8; i++) {
    const token = first + i;
    const row = rows + <usize>i * rowBytes;
    if (token >= length) {
      memory.fill(row, 0, rowBytes);
      continue;
    }
    const page = load<u32>(argPointer(args, BLOCK_TABLE) + (<usize>(token / pageSize) << 2));
    const entry = <usize>(page * pageSize + token % pageSize);
    loadLatentEntry(argPointer(args, CACHE) + entry * entrySize, dtype, latent, rope, row);
  }
  packPanel(F32, rows, rowBytes, 8, latent + rope, target);
}

/**
 * Keys as panels of 8 tokens [d_n + d_r]: W_UK·c, then the cached rotary values; values as panels of 8 channels. Eight rows
 * of weights stay in the first-level cache while all tokens of the tile pass.
 */
function expandTile(args: usize, latents: usize, weights: usize, keys: usize, values: usize): void {
  const latent = argInt(args, LATENT);
  const nope = <usize>argInt(args, NOPE);
  const rope = <usize>argInt(args, ROPE);
  const latentBytes = <usize>latent << 5;
  const panelBytes = latentBytes + (rope << 5);
  const keyBytes = (nope + rope) << 5;
  for (let d: usize = 0; d < nope; d += 8) {
    const w = weights + (d >> 3) * latentBytes;
    for (let panel: usize = 0; panel < <usize>KEYS / 8; panel++) {
      const source = latents + panel * panelBytes;
      const target = keys + panel * keyBytes + (d << 5);
      panelTile(w, source, latent, target);
      panelTile(w + 16, source, latent, target + 128);
    }
  }
  for (let panel: usize = 0; panel < <usize>KEYS / 8; panel++) {
    memory.copy(keys + panel * keyBytes + (nope << 5), latents + panel * panelBytes + latentBytes, rope << 5);
  }
  const valueWeights = weights + (nope >> 3) * latentBytes;
  for (let v: usize = 0; v < <usize>argInt(args, VALUE); v += 8) {
    const w = valueWeights + (v >> 3) * latentBytes;
    for (let panel: usize = 0; panel < <usize>KEYS / 8; panel++) {
      const source = latents + panel * panelBytes;
      const target = values + (v >> 3) * (KEYS * 32) + (panel << 8);
      panelTile(source, w, latent, target);
      panelTile(source + 16, w, latent, target + 128);
    }
  }
}

/**
 * Online softmax of 8 queries, one a lane, over `scores` [keys][8] in place: lane i sees keys under `visible` + i.
 * State: 8 maxima of the scaled base-2 scores, 8 sums. Writes the 8 factors by which earlier results shrink.
 */
function softmaxPanel(scores: usize, keys: i32, visible: i32, scale: f32, state: usize, factors: usize): void {
  const scales = f32x4.splat(scale);
  const end = scores + (<usize>keys << 5);
  for (let half: usize = 0; half < 32; half += 16) {
    const limit = i32x4.add(i32x4.splat(visible + <i32>(half >> 2)), i32x4(0, 1, 2, 3));
    const before = v128.load(state + half);
    let highest = before;
    let key = i32x4.splat(0);
    for (let at = scores + half; at < end; at += 32) {
      const scaled = f32x4.mul(v128.load(at), scales);
      const seen = v128.bitselect(scaled, f32x4.splat(-Infinity), i32x4.lt_s(key, limit));
      v128.store(at, seen);
      highest = f32x4.pmax(highest, seen);
      key = i32x4.add(key, i32x4.splat(1));
    }
    let sum = f32x4.splat(0);
    for (let at = scores + half; at < end; at += 32) {
      const p = exp2Lanes(f32x4.sub(v128.load(at), highest));
      v128.store(at, p);
      sum = f32x4.add(sum, p);
    }
    const factor = exp2Lanes(f32x4.sub(before, highest));
    v128.store(factors + half, factor);
    v128.store(state + half, highest);
    v128.store(state + half, multiplyAdd(v128.load(state + half, 32), factor, sum), 32);
  }
}

/** Scores of a panel of 8 queries against the tile's keys, softmax, and their share of the 8 rows `out`. */
function attendPanel(args: usize, visible: i32, queries: usize, keys: usize, values: usize, state: usize, out: usize, work: usize): void {
  const width = argInt(args, NOPE) + argInt(args, ROPE);
  const valueBytes = <usize>argInt(args, VALUE) << 2;
  const widthBytes = <usize>width << 2;
  const factors = work;
  const scores = work + 32;
  const count = min(KEYS, (visible + 7 + 3) & ~3); // keys that any of the 8 queries sees
  for (let key: usize = 0; key < <usize>count; key += 4) {
    const panel = keys + (key >> 3) * (widthBytes << 3) + ((key & 4) << 2);
    panelTile(panel, queries, width, scores + (key << 5));
  }
  softmaxPanel(scores, count, visible, argFloat(args, SCALE), state, factors);
  for (let half: usize = 0; half < 8; half += 4) {
    for (let v: usize = 0; v < valueBytes; v += 32) {
      const c = out + half * valueBytes + v;
      panelTileAdd(scores + (half << 2), values + v * KEYS, count, factors + (half << 2), c, valueBytes);
    }
  }
}

/** Queries `first`…`first + rows` of a head as panels, results and sums 0, every maximum under all scores. */
function startPass(args: usize, head: i32, first: i32, rows: i32, queries: usize, out: usize, states: usize): void {
  const width = argInt(args, NOPE) + argInt(args, ROPE);
  const stride = <usize>(argInt(args, HEADS) * width) << 2;
  const source = argPointer(args, Q) + <usize>first * stride + (<usize>(head * width) << 2);
  const padded = (rows + 7) & ~7;
  for (let row = 0; row < rows; row += 8) {
    const target = queries + (<usize>(row * width) << 2);
    packPanel(F32, source + <usize>row * stride, stride, min(8, rows - row), width, target);
  }
  memory.fill(out, 0, <usize>(padded * argInt(args, VALUE)) << 2);
  for (let row = 0; row < padded; row += 8) {
    const state = states + (<usize>row << 3);
    for (let i: usize = 0; i < 32; i += 4) store<f32>(state + i, LOWEST);
    memory.fill(state + 32, 0, 32);
  }
}

/** Writes the results divided by their sums; a query that sees nothing gives zeros. */
function finishPass(args: usize, head: i32, first: i32, rows: i32, results: usize, states: usize): void {
  const rowBytes = <usize>argInt(args, VALUE) << 2;
  for (let row = 0; row < rows; row++) {
    const sum = load<f32>(states + (<usize>(row & ~7) << 3) + (<usize>(row & 7) << 2), 32);
    const factor = f32x4.splat(sum > 0 ? <f32>1 / sum : 0);
    const source = results + <usize>row * rowBytes;
    const out = argPointer(args, OUT) + <usize>((first + row) * argInt(args, HEADS) + head) * rowBytes;
    for (let i: usize = 0; i < rowBytes; i += 16) v128.store(out + i, f32x4.mul(v128.load(source + i), factor));
  }
}

/**
 * Items are heads: each expands the cache tile by tile and takes the queries of the chunk through a tile, at most `passRows`
 * of them in a pass. Queries and results lie packed in scratch: in the buffers a head's rows are a multiple of 4 KiB
 * apart, which leaves them a few sets of each cache.
 */
export function mlaPrefill(args: usize, begin: i32, end: i32, scratch: usize): void {
  const rows = min(load<i32>(argPointer(args, ROW_COUNT)), argInt(args, MAX_ROWS));
  const length = load<i32>(argPointer(args, CACHE_SEQLENS));
  const nope = argInt(args, NOPE), value = argInt(args, VALUE), latent = argInt(args, LATENT);
  const width = nope + argInt(args, ROPE), passRows = argInt(args, PASS_ROWS);
  const panelBytes = <usize>(latent + argInt(args, ROPE)) << 5;
  const weights = scratch;
  const latents = weights + ((<usize>(nope + value) * latent) << 2);
  const keys = latents + panelBytes * (KEYS / 8);
  const values = keys + (<usize>width << 2) * KEYS;
  const states = values + (<usize>value << 2) * KEYS;
  const queries = states + (<usize>passRows << 3);
  const results = queries + (<usize>(passRows * width) << 2);
  const work = results + (<usize>(passRows * value) << 2);
  const headBytes = <usize>((nope + value) * latent) * weightSize(argInt(args, WEIGHT_DTYPE));
  for (let head = begin; head < end; head++) {
    packWeights(argInt(args, WEIGHT_DTYPE), argPointer(args, KV_B) + <usize>head * headBytes, nope + value, latent, weights);
    for (let first = 0; first < rows; first += passRows) {
      const count = min(passRows, rows - first);
      startPass(args, head, first, count, queries, results, states);
      // Query r of the chunk sits at position length − rows + r and sees one key more than that.
      const seen = length - rows + first + 1;
      for (let tile = 0; tile < min(length, seen + count); tile += KEYS) {
        for (let panel = 0; panel < KEYS / 8; panel++) {
          packLatent(args, tile + panel * 8, length, work, latents + <usize>panel * panelBytes);
        }
        expandTile(args, latents, weights, keys, values);
        for (let row = 0; row < count; row += 8) {
          if (seen + row - tile + 7 <= 0) continue;
          attendPanel(
            args, seen + row - tile, queries + (<usize>(row * width) << 2), keys, values,
            states + (<usize>row << 3), results + (<usize>(row * value) << 2), work,
          );
        }
      }
      finishPass(args, head, first, count, results, states);
    }
  }
}
