import { argInt, argPointer } from "../common/simd.as";

/** Bytes of one row of the params buffer; sampling.ts holds the same number. */
const PARAMS_BYTES: usize = 32;
/** Scratch: u64 [2048] of a radix pass, then the boundary found: u32 key, u32 ties. */
const BOUNDARY: usize = 16384;

/** e^x for x ≤ 0 (Cephes expf), without fused steps so that both builds draw alike; 0 below −87 and for NaN. */
// @ts-ignore: decorator
@inline
function exponentials(x: v128): v128 {
  const clamped = f32x4.max(x, f32x4.splat(-87));
  const n = f32x4.nearest(f32x4.mul(clamped, f32x4.splat(1.44269504)));
  const high = f32x4.sub(clamped, f32x4.mul(n, f32x4.splat(0.693359375)));
  const r = f32x4.sub(high, f32x4.mul(n, f32x4.splat(-2.12194440e-4)));
  let p = f32x4.splat(1.9875691500e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(0.5));
  p = f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), f32x4.add(r, f32x4.splat(1)));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return v128.and(f32x4.mul(p, power), f32x4.ge(x, f32x4.splat(-87)));
}

/** An unsigned integer in the order of the logits; NaN comes last, the zeros are equal. */
// @ts-ignore: decorator
@inline
function orderKey(logit: f32): u32 {
  if (logit != logit) return 0;
  if (logit == 0) return 0x80000000;
  const bits = reinterpret<u32>(logit);
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

/** A weight in 2⁻³² units, so that sums are exact in any order. */
// @ts-ignore: decorator
@inline
function massOf(weight: f32): u64 {
  return <u64>(weight * <f32>4294967296.0);
}

/** Index of the largest of `count` logits; the lowest one among equals, 0 when all are NaN. */
function argmax(logits: usize, count: i32): i32 {
  let lanes = f32x4.splat(-Infinity);
  let i = 0;
  for (; i + 4 <= count; i += 4) lanes = f32x4.pmax(lanes, v128.load(logits + (<usize>i << 2)));
  let largest = max(
    max(f32x4.extract_lane(lanes, 0), f32x4.extract_lane(lanes, 1)),
    max(f32x4.extract_lane(lanes, 2), f32x4.extract_lane(lanes, 3)),
  );
  for (; i < count; i++) {
    const logit = load<f32>(logits + (<usize>i << 2));
    if (logit > largest) largest = logit;
  }
  for (i = 0; i < count; i++) if (load<f32>(logits + (<usize>i << 2)) == largest) return i;
  return 0;
}

/** weights = e^((logit − largest) / temperature). */
function weigh(logits: usize, weights: usize, count: i32, largest: f32, temperature: f32): void {
  const top = f32x4.splat(largest);
  const divisor = f32x4.splat(temperature);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const at = <usize>i << 2;
    v128.store(weights + at, exponentials(f32x4.div(f32x4.sub(v128.load(logits + at), top), divisor)));
  }
  for (; i < count; i++) {
    const at = <usize>i << 2;
    const x = f32x4.splat((load<f32>(logits + at) - largest) / temperature);
    store<f32>(weights + at, f32x4.extract_lane(exponentials(x), 0));
  }
}

/** Adds the tokens whose leading key bits are `prefix` to the buckets of their next bits, by number or by mass. */
function fillBuckets(logits: usize, weights: usize, count: i32, prefix: u64, shift: u64, bits: u64, scratch: usize): void {
  memory.fill(scratch, 0, BOUNDARY);
  const mask = (<u64>1 << bits) - 1;
  for (let at: usize = 0, end = <usize>count << 2; at < end; at += 4) {
    const key = <u64>orderKey(load<f32>(logits + at));
    if (key >> (shift + bits) != prefix) continue;
    const bucket = scratch + (<usize>((key >> shift) & mask) << 3);
    store<u64>(bucket, load<u64>(bucket) + (weights ? massOf(load<f32>(weights + at)) : 1));
  }
}

/** Radix select: the key at which the tokens from the best on reach `target`; the part of it due there is returned. */
function findBoundary(logits: usize, weights: usize, count: i32, target: u64, scratch: usize): u64 {
  let prefix: u64 = 0;
  for (let shift: u64 = 21; ; ) {
    const bits: u64 = shift == 0 ? 10 : 11;
    fillBuckets(logits, weights, count, prefix, shift, bits, scratch);
    let bucket: i32 = (1 << <i32>bits) - 1;
    while (bucket > 0) {
      const held = load<u64>(scratch + (<usize>bucket << 3));
      if (target <= held) break;
      target -= held;
      bucket--;
    }
    prefix = (prefix << bits) | <u64>bucket;
    if (shift == 0) break;
    shift = shift == 21 ? 10 : 0;
  }
  store<u32>(scratch + BOUNDARY, <u32>prefix);
  return target;
}

/** Turns a share of the boundary's mass into a number of equal tokens. */
function tiesFor(logits: usize, weights: usize, count: i32, key: u32, mass: u64): u32 {
  for (let i = 0; i < count; i++) {
    const at = <usize>i << 2;
    if (orderKey(load<f32>(logits + at)) != key) continue;
    const each = massOf(load<f32>(weights + at));
    return each == 0 ? 1 : <u32>((mass + each - 1) / each);
  }
  return 1;
}

/** Walks the kept tokens by id: their mass in all (`draw` = −1), or the id at which the running mass passes `draw`. */
function walkKept(logits: usize, weights: usize, count: i32, minP: f32, draw: i64, scratch: usize): i64 {
  const boundary = load<u32>(scratch + BOUNDARY);
  let ties = load<u32>(scratch + BOUNDARY + 4);
  let mass: i64 = 0;
  for (let i = 0; i < count; i++) {
    const at = <usize>i << 2;
    const key = orderKey(load<f32>(logits + at));
    if (key < boundary) continue;
    if (key == boundary) {
      if (ties == 0) continue;
      ties--;
    }
    const weight = load<f32>(weights + at);
    if (weight < minP) continue;
    mass += <i64>massOf(weight);
    if (draw >= 0 && mass > draw) return <i64>i;
  }
  return mass;
}

/** First word of Philox4x32-10 (Salmon et al. 2011) at counter (step, 0, 0, 0). */
function philox(step: u32, seedLow: u32, seedHigh: u32): u32 {
  let c0: u32 = step;
  let c1: u32 = 0;
  let c2: u32 = 0;
  let c3: u32 = 0;
  for (let round = 0; round < 10; round++) {
    const a = <u64>c0 * 0xd2511f53;
    const b = <u64>c2 * 0xcd9e8d57;
    c0 = <u32>(b >> 32) ^ c1 ^ seedLow;
    c2 = <u32>(a >> 32) ^ c3 ^ seedHigh;
    c1 = <u32>b;
    c3 = <u32>a;
    seedLow += 0x9e3779b9;
    seedHigh += 0xbb67ae85;
  }
  return c0;
}

function sampleRow(logits: usize, weights: usize, count: i32, params: usize, scratch: usize): i32 {
  const best = argmax(logits, count);
  const largest = load<f32>(logits + (<usize>best << 2));
  const temperature = load<f32>(params);
  if (!(temperature > 0) || !(abs<f32>(largest) < Infinity)) return best;
  const topK = load<i32>(params, 4);
  const topP = load<f32>(params, 8);
  const minP = load<f32>(params, 12);
  weigh(logits, weights, count, largest, temperature);
  store<u64>(scratch + BOUNDARY, <u64>0xffffffff << 32);
  if (topK > 0 && topK < count) {
    const ties = findBoundary(logits, 0, count, <u64>topK, scratch);
    store<u32>(scratch + BOUNDARY + 4, <u32>ties);
  }
  if (topP < 1) {
    const kept = <u64>walkKept(logits, weights, count, 0, -1, scratch);
    const target = min(kept, max<u64>(1, <u64>ceil<f64>(<f64>kept * <f64>topP)));
    const mass = findBoundary(logits, weights, count, target, scratch);
    const ties = tiesFor(logits, weights, count, load<u32>(scratch + BOUNDARY), mass);
    store<u32>(scratch + BOUNDARY + 4, ties);
  }
  const total = <u64>walkKept(logits, weights, count, minP, -1, scratch);
  const random = <u64>philox(load<u32>(params, 24), load<u32>(params, 16), load<u32>(params, 20));
  const draw = random * (total >> 32) + ((random * (total & 0xffffffff)) >> 32);
  return <i32>walkKept(logits, weights, count, minP, <i64>draw, scratch);
}

/** Items are rows. Buffers: logits, params, out, workspace, rowCount; scalars: vocab, validVocab. */
export function sampling(args: usize, begin: i32, end: i32, scratch: usize): void {
  const rows = min(end, load<i32>(argPointer(args, 4)));
  const rowBytes = <usize>argInt(args, 5) << 2;
  for (let row = begin; row < rows; row++) {
    const at = <usize>row * rowBytes;
    const params = argPointer(args, 1) + <usize>row * PARAMS_BYTES;
    const id = sampleRow(argPointer(args, 0) + at, argPointer(args, 3) + at, argInt(args, 6), params, scratch);
    store<i32>(argPointer(args, 2) + (<usize>row << 2), id);
  }
}
