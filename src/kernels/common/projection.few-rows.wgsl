// Few rows: bound by reading the weights. A workgroup has 4 outputs, 32 lanes each; a lane reads every 32nd word of 8 weights, four
// under way at once, and meets ROWS rows of x with it. A row's sums are added in the same order whatever ROWS is.
#include "grid.wgsl"
#include "projection.wgsl"
#include "eight-weights.wgsl"

const LANES = 32u;
const OUTPUTS = 4u;
const PITCH = LANES + 1u;

var<workgroup> sums: array<f32, ROWS * OUTPUTS * PITCH>;
#if GATED
var<workgroup> gatedSums: array<f32, ROWS * OUTPUTS * PITCH>;
#endif

fn meet(weights: Eight, row: u32, index: u32) -> f32 {
  return dot(weights.low, fourInputs(row, index * 2u)) + dot(weights.high, fourInputs(row, index * 2u + 1u));
}

/// The sums over a workgroup's lanes, each by one invocation.
fn finish(local: u32, output: u32, begin: u32, end: u32) {
  workgroupBarrier();
  let row = local / OUTPUTS;
  let own = local % OUTPUTS;
  if (row < ROWS && begin + row < end && output + own < u32(scalars.count)) {
    var sum = 0.0;
    var gated = 0.0;
    for (var lane = 0u; lane < LANES; lane++) {
      sum += sums[local * PITCH + lane];
#if GATED
      gated += gatedSums[local * PITCH + lane];
#endif
    }
    store(outRow(begin + row), output + own, sum, gated);
  }
  workgroupBarrier();
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
#if EXPERTS
  let expert = item % u32(scalars.experts);
  let output = item / u32(scalars.experts) * OUTPUTS;
#else
  let expert = 0u;
  let output = item * OUTPUTS;
#endif
  let span = liveRows(expert, local);
  let lane = local % LANES;
  let own = min(output + local / LANES, u32(scalars.count) - 1u);
  let words = u32(scalars.inputs) / 8u;
#if EXPERTS
  let base = (expert * u32(scalars.expertRows) + own) * words;
  let secondBase = base + u32(scalars.secondRow) * words;
#else
  let base = own * words;
  let secondBase = base;
#endif
  for (var begin = span.begin; begin < span.end; begin += ROWS) {
    var row: array<u32, ROWS>;
    var sum: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      row[r] = inRow(min(begin + r, span.end - 1u));
      sum[r] = 0.0;
    }
#if GATED
    var gated: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { gated[r] = 0.0; }
#endif
    var at = lane;
    for (; at + 3u * LANES < words; at += 4u * LANES) {
      let a = firstEight(base + at);
      let b = firstEight(base + at + LANES);
      let c = firstEight(base + at + 2u * LANES);
      let d = firstEight(base + at + 3u * LANES);
#if GATED
      let e = secondEight(secondBase + at);
      let f = secondEight(secondBase + at + LANES);
      let g = secondEight(secondBase + at + 2u * LANES);
      let h = secondEight(secondBase + at + 3u * LANES);
#endif
      for (var r = 0u; r < ROWS; r++) {
        sum[r] += meet(a, row[r], at);
        sum[r] += meet(b, row[r], at + LANES);
        sum[r] += meet(c, row[r], at + 2u * LANES);
        sum[r] += meet(d, row[r], at + 3u * LANES);
#if GATED
        gated[r] += meet(e, row[r], at);
        gated[r] += meet(f, row[r], at + LANES);
        gated[r] += meet(g, row[r], at + 2u * LANES);
        gated[r] += meet(h, row[r], at + 3u * LANES);
#endif
      }
    }
    for (; at < words; at += LANES) {
      let a = firstEight(base + at);
      for (var r = 0u; r < ROWS; r++) { sum[r] += meet(a, row[r], at); }
#if GATED
      let e = secondEight(secondBase + at);
      for (var r = 0u; r < ROWS; r++) { gated[r] += meet(e, row[r], at); }
#endif
    }
    for (var r = 0u; r < ROWS; r++) {
      sums[(r * OUTPUTS + local / LANES) * PITCH + lane] = sum[r];
#if GATED
      gatedSums[(r * OUTPUTS + local / LANES) * PITCH + lane] = gated[r];
#endif
    }
    finish(local, output, begin, span.end);
  }
}
