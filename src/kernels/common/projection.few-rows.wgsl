// Few rows: bound by reading the weights. A workgroup of 128 has slots of LANES lanes with PER_LANE outputs each; a lane reads every LANES-th
// word of 8 weights, four under way at once, and meets ROWS rows of x with it. A row's sums are added in the same order whatever ROWS is.
// SUBGROUPS: a slot is a subgroup (of LANES) and adds up by subgroupAdd, else in workgroup memory. NORMED: x is multiplied by `norm` and
// divided by its root mean square, whose squares come along; epsilon is a scalar then. PAIRED: outputs past `count` are those of `second`
// over the same rows, stored to `out2`; the scalar secondCount has their number.
#include "grid.wgsl"
#include "projection.wgsl"
#include "eight-weights.wgsl"

const SLOTS = 128u / LANES;
const OUTPUTS = SLOTS * PER_LANE;
/// Sums of a lane.
const SUMS = ROWS * PER_LANE;

#if NORMED
@group(0) @binding(5) var<storage, read> norm: array<vec4f>;
#endif
#if PAIRED
@group(0) @binding(6) var<storage, read_write> out2: array<f32>;
#endif

/// Values of a lane that are summed over its slot: its sums, those of the gate's factor, and the squares of x.
const SHARED = SUMS * select(1u, 2u, GATED) + select(0u, ROWS, NORMED);
#if SUBGROUPS
const PITCH = 1u;
#else
const PITCH = LANES + 1u;
#endif
var<workgroup> shares: array<f32, SHARED * SLOTS * PITCH>;

/// Hands in value `index` of a lane.
fn share(value: f32, index: u32, local: u32) {
  let slot = (index * SLOTS + local / LANES) * PITCH;
#if SUBGROUPS
  let sum = subgroupAdd(value);
  if (local % LANES == 0u) { shares[slot] = sum; }
#else
  shares[slot + local % LANES] = value;
#endif
}

/// Value `index` summed over a slot's lanes.
fn slotSum(index: u32, slot: u32) -> f32 {
  let begin = (index * SLOTS + slot) * PITCH;
#if SUBGROUPS
  return shares[begin];
#else
  var sum = 0.0;
  for (var lane = 0u; lane < LANES; lane++) { sum += shares[begin + lane]; }
  return sum;
#endif
}

/// Eight weights times the inputs that they meet.
fn meet(weights: Eight, row: u32, index: u32) -> f32 {
#if NORMED
  let low = fourInputs(row, index * 2u) * norm[index * 2u];
  let high = fourInputs(row, index * 2u + 1u) * norm[index * 2u + 1u];
  return dot(weights.low, low) + dot(weights.high, high);
#else
  return dot(weights.low, fourInputs(row, index * 2u)) + dot(weights.high, fourInputs(row, index * 2u + 1u));
#endif
}

#if NORMED
fn squareOf(row: u32, index: u32) -> f32 {
  let low = fourInputs(row, index * 2u);
  let high = fourInputs(row, index * 2u + 1u);
  return dot(low, low) + dot(high, high);
}
#endif

fn weightsAt(isSecond: bool, index: u32) -> Eight {
#if PAIRED
  if (isSecond) { return secondEight(index); }
#endif
  return firstEight(index);
}

/// Stores value `i` of [ROWS, OUTPUTS], where there is such a row and output.
fn finish(i: u32, begin: u32, end: u32, tileOutput: u32, outputs: u32, isSecond: bool) {
  let r = i / OUTPUTS;
  let own = i % OUTPUTS;
  if (begin + r >= end || tileOutput + own >= outputs) { return; }
  let slot = own / PER_LANE;
  let index = r * PER_LANE + own % PER_LANE;
#if NORMED
  let factor = 1.0 / sqrt(slotSum(SHARED - ROWS + r, slot) / f32(scalars.inputs) + scalars.epsilon);
#else
  let factor = 1.0;
#endif
  let total = slotSum(index, slot) * factor;
#if PAIRED
  if (isSecond) {
    out2[outRow(begin + r) * outputs + tileOutput + own] = total;
    return;
  }
#endif
#if GATED
  store(outRow(begin + r), tileOutput + own, total, slotSum(SUMS + index, slot) * factor);
#else
  store(outRow(begin + r), tileOutput + own, total, 0.0);
#endif
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let count = u32(scalars.count);
#if EXPERTS
  let expert = item % u32(scalars.experts);
  let tile = item / u32(scalars.experts);
#else
  let expert = 0u;
  let tile = item;
#endif
#if PAIRED
  let tiles = (count + OUTPUTS - 1u) / OUTPUTS;
  let isSecond = tile >= tiles;
  let outputs = select(count, u32(scalars.secondCount), isSecond);
  let tileOutput = select(tile, tile - tiles, isSecond) * OUTPUTS;
#else
  let isSecond = false;
  let outputs = count;
  let tileOutput = tile * OUTPUTS;
#endif
  let span = liveRows(expert, local);
  let lane = local % LANES;
  let output = tileOutput + local / LANES * PER_LANE;
  let words = u32(scalars.inputs) / 8u;
#if EXPERTS
  let expertRow = expert * u32(scalars.expertRows);
#else
  let expertRow = 0u;
#endif
  let base0 = (expertRow + min(output, outputs - 1u)) * words;
#if PER_LANE == 2
  let base1 = (expertRow + min(output + 1u, outputs - 1u)) * words;
#endif
#if EXPERTS
  let secondShift = u32(scalars.secondRow) * words;
#else
  let secondShift = 0u;
#endif
  for (var begin = span.begin; begin < span.end; begin += ROWS) {
    var row: array<u32, ROWS>;
    var sum: array<f32, SUMS>;
    for (var r = 0u; r < ROWS; r++) { row[r] = inRow(min(begin + r, span.end - 1u)); }
    for (var i = 0u; i < SUMS; i++) { sum[i] = 0.0; }
#if GATED
    var gated: array<f32, SUMS>;
    for (var i = 0u; i < SUMS; i++) { gated[i] = 0.0; }
#endif
#if NORMED
    var squares: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { squares[r] = 0.0; }
#endif
    var at = lane;
    for (; at + 3u * LANES < words; at += 4u * LANES) {
      let a = weightsAt(isSecond, base0 + at);
      let b = weightsAt(isSecond, base0 + at + LANES);
      let c = weightsAt(isSecond, base0 + at + 2u * LANES);
      let d = weightsAt(isSecond, base0 + at + 3u * LANES);
#if PER_LANE == 2
      let e = weightsAt(isSecond, base1 + at);
      let f = weightsAt(isSecond, base1 + at + LANES);
      let g = weightsAt(isSecond, base1 + at + 2u * LANES);
      let h = weightsAt(isSecond, base1 + at + 3u * LANES);
#endif
#if GATED
      let e = secondEight(base0 + secondShift + at);
      let f = secondEight(base0 + secondShift + at + LANES);
      let g = secondEight(base0 + secondShift + at + 2u * LANES);
      let h = secondEight(base0 + secondShift + at + 3u * LANES);
#endif
      for (var r = 0u; r < ROWS; r++) {
        sum[r * PER_LANE] += meet(a, row[r], at);
        sum[r * PER_LANE] += meet(b, row[r], at + LANES);
        sum[r * PER_LANE] += meet(c, row[r], at + 2u * LANES);
        sum[r * PER_LANE] += meet(d, row[r], at + 3u * LANES);
#if PER_LANE == 2
        sum[r * PER_LANE + 1u] += meet(e, row[r], at);
        sum[r * PER_LANE + 1u] += meet(f, row[r], at + LANES);
        sum[r * PER_LANE + 1u] += meet(g, row[r], at + 2u * LANES);
        sum[r * PER_LANE + 1u] += meet(h, row[r], at + 3u * LANES);
#endif
#if GATED
        gated[r] += meet(e, row[r], at);
        gated[r] += meet(f, row[r], at + LANES);
        gated[r] += meet(g, row[r], at + 2u * LANES);
        gated[r] += meet(h, row[r], at + 3u * LANES);
#endif
#if NORMED
        squares[r] += squareOf(row[r], at);
        squares[r] += squareOf(row[r], at + LANES);
        squares[r] += squareOf(row[r], at + 2u * LANES);
        squares[r] += squareOf(row[r], at + 3u * LANES);
#endif
      }
    }
    for (; at < words; at += LANES) {
      let a = weightsAt(isSecond, base0 + at);
#if PER_LANE == 2
      let e = weightsAt(isSecond, base1 + at);
#endif
#if GATED
      let e = secondEight(base0 + secondShift + at);
#endif
      for (var r = 0u; r < ROWS; r++) {
        sum[r * PER_LANE] += meet(a, row[r], at);
#if PER_LANE == 2
        sum[r * PER_LANE + 1u] += meet(e, row[r], at);
#endif
#if GATED
        gated[r] += meet(e, row[r], at);
#endif
#if NORMED
        squares[r] += squareOf(row[r], at);
#endif
      }
    }
    for (var i = 0u; i < SUMS; i++) { share(sum[i], i, local); }
#if GATED
    for (var i = 0u; i < SUMS; i++) { share(gated[i], SUMS + i, local); }
#endif
#if NORMED
    for (var r = 0u; r < ROWS; r++) { share(squares[r], SHARED - ROWS + r, local); }
#endif
    workgroupBarrier();
    for (var i = local; i < ROWS * OUTPUTS; i += 128u) {
      finish(i, begin, span.end, tileOutput, outputs, isSecond);
    }
    workgroupBarrier();
  }
}
