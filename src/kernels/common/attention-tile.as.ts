// Attention over a tile of latent-tile.as.ts: scores of row pairs, exp2 and log2, an online softmax step, P·V.
import { TILE, TILE_STRIDE } from "./latent-tile.as";
import { multiplyAdd } from "./simd.as";

/** Where a running maximum starts: under every score, and finite, so that no difference is NaN. */
export const LOWEST: f32 = -1e30;

/** Bytes from a row of scores to the next. */
const SCORE_STRIDE: usize = <usize>TILE << 2;

/** The sums of the lanes of a, b, c, d, as four lanes. */
// @ts-ignore: decorator
@inline
export function sumLanes4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

/**
 * 2^x per lane for x ≤ 127, within 1.5e-7 relative; exactly 0 from −127 down. Adding 1.5·2^23 leaves the nearest integer in
 * the low bits; Taylor's series to degree 7 does the rest.
 */
export function exp2Lanes(x: v128): v128 {
  const bounded = f32x4.pmax(x, f32x4.splat(-127));
  const shifted = f32x4.add(bounded, f32x4.splat(12582912));
  const f = f32x4.sub(bounded, f32x4.sub(shifted, f32x4.splat(12582912)));
  let p = f32x4.splat(<f32>1.525273380405984e-5);
  p = multiplyAdd(p, f, f32x4.splat(<f32>1.540353039338161e-4));
  p = multiplyAdd(p, f, f32x4.splat(<f32>1.3333558146428443e-3));
  p = multiplyAdd(p, f, f32x4.splat(<f32>9.618129107628477e-3));
  p = multiplyAdd(p, f, f32x4.splat(<f32>5.550410866482158e-2));
  p = multiplyAdd(p, f, f32x4.splat(<f32>0.2402265069591007));
  p = multiplyAdd(p, f, f32x4.splat(<f32>0.6931471805599453));
  p = multiplyAdd(p, f, f32x4.splat(1));
  return f32x4.mul(p, i32x4.shl(i32x4.add(shifted, i32x4.splat(127)), 23));
}

/** ln x for a positive normal x, in float64: the exponent and 2·artanh((m − 1) / (m + 1)) to degree 15. */
export function naturalLog(x: f64): f64 {
  const bits = reinterpret<u64>(x);
  let exponent = <i32>((bits >> 52) & 0x7ff) - 1023;
  let mantissa = reinterpret<f64>((bits & 0xfffffffffffff) | 0x3ff0000000000000);
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    exponent++;
  }
  const s = (mantissa - 1) / (mantissa + 1);
  const t = s * s;
  let sum: f64 = 1.0 / 15;
  for (let k = 13; k > 0; k -= 2) sum = sum * t + 1.0 / <f64>k;
  return <f64>exponent * 0.6931471805599453 + 2 * s * sum;
}

// @ts-ignore: decorator
@inline
function maxLanes(v: v128): f32 {
  const pairs = f32x4.pmax(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}

/**
 * One step of the online softmax (Milakov & Gimelshein 2018) of a row of `count` base-2 scores (a multiple of 4; −∞ is
 * masked): turns them into 2^(score − max), updates the row's max and sum at `state`, and rescales the
 * `channels` values at `out`, all zero at first, when the max rose.
 */
export function softmaxStep(scores: usize, count: i32, state: usize, out: usize, channels: i32): void {
  const end = scores + (<usize>count << 2);
  const before = load<f32>(state);
  let highest = f32x4.splat(before);
  for (let at = scores; at < end; at += 16) highest = f32x4.pmax(highest, v128.load(at));
  const after = maxLanes(highest);
  const shift = f32x4.splat(after);
  let sums = f32x4.splat(0);
  for (let at = scores; at < end; at += 16) {
    const p = exp2Lanes(f32x4.sub(v128.load(at), shift));
    v128.store(at, p);
    sums = f32x4.add(sums, p);
  }
  const sum = f32x4.extract_lane(sumLanes4(sums, sums, sums, sums), 0);
  store<f32>(state, after);
  if (after == before) {
    store<f32>(state, load<f32>(state, 4) + sum, 4);
    return;
  }
  const factor = exp2Lanes(f32x4.splat(before - after));
  store<f32>(state, load<f32>(state, 4) * f32x4.extract_lane(factor, 0) + sum, 4);
  if (before == LOWEST) return;
  const outEnd = out + (<usize>channels << 2);
  for (let at = out; at < outEnd; at += 16) v128.store(at, f32x4.mul(v128.load(at), factor));
}

/** Packs two query rows times `factor`, four values of each in turn; `b` may be `a`. */
export function packQueryPair(a: usize, b: usize, width: i32, factor: v128, target: usize): void {
  const end = a + (<usize>width << 2);
  for (; a < end; a += 16, b += 16, target += 32) {
    v128.store(target, f32x4.mul(v128.load(a), factor));
    v128.store(target, f32x4.mul(v128.load(b), factor), 16);
  }
}

/** Scores of a packed query pair of `width` values against four tokens of a tile, to two rows of scores. */
function scorePair(q: usize, tokens: usize, width: i32, scores: usize): void {
  let a0 = f32x4.splat(0), b0 = a0, c0 = a0, d0 = a0, a1 = a0, b1 = a0, c1 = a0, d1 = a0;
  const end = q + (<usize>width << 3);
  while (q < end) {
    const x0 = v128.load(q);
    const x1 = v128.load(q, 16);
    let w = v128.load(tokens);
    a0 = multiplyAdd(x0, w, a0);
    a1 = multiplyAdd(x1, w, a1);
    w = v128.load(tokens, 16);
    b0 = multiplyAdd(x0, w, b0);
    b1 = multiplyAdd(x1, w, b1);
    w = v128.load(tokens, 32);
    c0 = multiplyAdd(x0, w, c0);
    c1 = multiplyAdd(x1, w, c1);
    w = v128.load(tokens, 48);
    d0 = multiplyAdd(x0, w, d0);
    d1 = multiplyAdd(x1, w, d1);
    q += 32;
    tokens += TILE_STRIDE;
  }
  v128.store(scores, sumLanes4(a0, b0, c0, d0));
  v128.store(scores, sumLanes4(a1, b1, c1, d1), SCORE_STRIDE);
}

/** Scores of `pairs` packed query pairs against `count` tokens of a tile, rounded up to 4. */
export function scoreTile(q: usize, pairs: i32, tile: usize, count: i32, width: i32, scores: usize): void {
  const pairBytes = <usize>width << 3;
  for (let t: usize = 0; t < <usize>count; t += 4) {
    for (let i: usize = 0; i < <usize>pairs; i++) {
      scorePair(q + i * pairBytes, tile + (t << 4), width, scores + i * 2 * SCORE_STRIDE + (t << 2));
    }
  }
}

/**
 * Scores of the first row of the packed query pair at `q` against `count` tokens of a tile, rounded up to 8; what it sums has
 * the order of `scoreTile`. Eight tokens make eight sums, as two rows by four tokens do.
 */
export function scoreOddRow(q: usize, tile: usize, count: i32, width: i32, scores: usize): void {
  const end = q + (<usize>width << 3);
  for (let t: usize = 0; t < <usize>count; t += 8) {
    let a = f32x4.splat(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    let tokens = tile + (t << 4);
    for (let at = q; at < end; at += 32, tokens += TILE_STRIDE) {
      const x = v128.load(at);
      a = multiplyAdd(x, v128.load(tokens), a);
      b = multiplyAdd(x, v128.load(tokens, 16), b);
      c = multiplyAdd(x, v128.load(tokens, 32), c);
      d = multiplyAdd(x, v128.load(tokens, 48), d);
      if (tokens == 0) break;
      e = multiplyAdd(x, v128.load(tokens, 64), e);
      f = multiplyAdd(x, v128.load(tokens, 80), f);
      g = multiplyAdd(x, v128.load(tokens, 96), g);
      h = multiplyAdd(x, v128.load(tokens, 112), h);
    }
    v128.store(scores + (t << 2), sumLanes4(a, b, c, d));
    v128.store(scores + (t << 2), sumLanes4(e, f, g, h), 16);
  }
}

/** Two rows of 16 channels: out += p·v over `count` tokens; `v` is the first token's first four channels. */
function accumulatePair(p: usize, v: usize, count: i32, out0: usize, out1: usize): void {
  let a0 = v128.load(out0), b0 = v128.load(out0, 16), c0 = v128.load(out0, 32), d0 = v128.load(out0, 48);
  let a1 = v128.load(out1), b1 = v128.load(out1, 16), c1 = v128.load(out1, 32), d1 = v128.load(out1, 48);
  const end = p + (<usize>count << 2);
  while (p < end) {
    const p0 = v128.load32_splat(p);
    const p1 = v128.load32_splat(p, SCORE_STRIDE);
    let w = v128.load(v);
    a0 = multiplyAdd(p0, w, a0);
    a1 = multiplyAdd(p1, w, a1);
    w = v128.load(v, TILE_STRIDE);
    b0 = multiplyAdd(p0, w, b0);
    b1 = multiplyAdd(p1, w, b1);
    w = v128.load(v, 2 * TILE_STRIDE);
    c0 = multiplyAdd(p0, w, c0);
    c1 = multiplyAdd(p1, w, c1);
    w = v128.load(v, 3 * TILE_STRIDE);
    d0 = multiplyAdd(p0, w, d0);
    d1 = multiplyAdd(p1, w, d1);
    p += 4;
    v += 16;
  }
  v128.store(out0, a0);
  v128.store(out0, b0, 16);
  v128.store(out0, c0, 32);
  v128.store(out0, d0, 48);
  v128.store(out1, a1);
  v128.store(out1, b1, 16);
  v128.store(out1, c1, 32);
  v128.store(out1, d1, 48);
}

/** out [2·pairs, channels] += P·V over `count` tokens of a tile; channels a multiple of 16. */
export function accumulateTile(scores: usize, pairs: i32, tile: usize, count: i32, channels: i32, out: usize): void {
  const outStride = <usize>channels << 2;
  for (let c: usize = 0; c < outStride; c += 64) {
    const v = tile + (c >> 4) * TILE_STRIDE;
    for (let i: usize = 0; i < <usize>pairs; i++) {
      const row = out + 2 * i * outStride + c;
      accumulatePair(scores + 2 * i * SCORE_STRIDE, v, count, row, row + outStride);
    }
  }
}

/** One row: out [channels] += p·V over `count` tokens of a tile, in the order of `accumulateTile`; channels a multiple of 32. */
export function accumulateOddRow(p: usize, tile: usize, count: i32, channels: i32, out: usize): void {
  const end = p + (<usize>count << 2), outEnd = out + (<usize>channels << 2);
  for (; out < outEnd; out += 128, tile += 8 * TILE_STRIDE) {
    let a = v128.load(out), b = v128.load(out, 16), c = v128.load(out, 32), d = v128.load(out, 48);
    let e = v128.load(out, 64), f = v128.load(out, 80), g = v128.load(out, 96), h = v128.load(out, 112);
    let v = tile;
    for (let at = p; at < end; at += 4, v += 16) {
      const x = v128.load32_splat(at);
      a = multiplyAdd(x, v128.load(v), a);
      b = multiplyAdd(x, v128.load(v, TILE_STRIDE), b);
      c = multiplyAdd(x, v128.load(v, 2 * TILE_STRIDE), c);
      d = multiplyAdd(x, v128.load(v, 3 * TILE_STRIDE), d);
      if (v == 0) break;
      e = multiplyAdd(x, v128.load(v, 4 * TILE_STRIDE), e);
      f = multiplyAdd(x, v128.load(v, 5 * TILE_STRIDE), f);
      g = multiplyAdd(x, v128.load(v, 6 * TILE_STRIDE), g);
      h = multiplyAdd(x, v128.load(v, 7 * TILE_STRIDE), h);
    }
    v128.store(out, a), v128.store(out, b, 16), v128.store(out, c, 32), v128.store(out, d, 48);
    v128.store(out, e, 64), v128.store(out, f, 80), v128.store(out, g, 96), v128.store(out, h, 112);
  }
}
