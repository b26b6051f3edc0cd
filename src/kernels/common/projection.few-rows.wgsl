// Few rows: bound by reading the weights. A workgroup of 128 has slots of LANES lanes with PER_LANE outputs each; a lane reads every LANES-th
// word of 8 weights, DEPTH under way at once, and meets ROWS rows of x with it. Nothing that has to be waited for stands before the first
// loads, neither the number of rows nor a branch around a load. A row's sums are added in the same order whatever ROWS is.
// SUBGROUPS: a slot is PARTS subgroups, which add up by subgroupAdd, and in workgroup memory where there are several; else PARTS is LANES. NORMED: x is multiplied by `norm` and
// divided by its root mean square, whose squares come along; epsilon is a scalar then. PAIRED: outputs past `count` are those of `second`
// over the same rows, stored to `out2`; the scalar secondCount has their number. UNEVEN: the words of a row are no multiple of DEPTH · LANES.
// Constants beside: ACCUMULATE_EARLY, that there is one row and what it is added to is asked for first; MOST, the rows that x and out have; MATRICES, 2 if PAIRED and else 1.
#include "grid.wgsl"
#include "projection.wgsl"
#include "eight-weights.wgsl"

const SLOTS = 128u / LANES;
const OUTPUTS = SLOTS * PER_LANE;
/// Sums of a slot.
const SUMS = ROWS * PER_LANE;

#if NORMED
@group(0) @binding(5) var<storage, read> norm: array<vec4f>;
#endif
#if PAIRED
@group(0) @binding(6) var<storage, read_write> out2: array<f32>;
#endif

#if PARTS != 1
/// Values of a part of a slot that are summed over it: its sums, those of the gate's factor, and the squares of x.
const SHARED = SUMS * select(1u, 2u, GATED) + select(0u, ROWS, NORMED);
const PITCH = PARTS + select(1u, 0u, SUBGROUPS);
var<workgroup> shares: array<f32, SHARED * SLOTS * PITCH>;

/// Value `index` summed over a slot's parts.
fn slotSum(index: u32, slot: u32) -> f32 {
  let begin = (index * SLOTS + slot) * PITCH;
  var sum = 0.0;
  for (var part = 0u; part < PARTS; part++) { sum += shares[begin + part]; }
  return sum;
}
#endif

/// Eight inputs of a row.
fn inputsAt(row: u32, index: u32) -> Eight {
  return Eight(fourInputs(row, index * 2u), fourInputs(row, index * 2u + 1u));
}

fn onlyIf(isThere: bool, value: Eight) -> Eight {
  return Eight(select(vec4f(0), value.low, isThere), select(vec4f(0), value.high, isThere));
}

fn dotEight(a: Eight, b: Eight) -> f32 { return dot(a.low, b.low) + dot(a.high, b.high); }

/// What becomes of an output's sums: `total`, `gated` of the gate's factor, and the sum of the row's squares; `before` is what it is added to.
fn finish(row: u32, output: u32, outputs: u32, isSecond: bool, total: f32, gated: f32, squares: f32, before: f32) {
#if NORMED
  let factor = 1.0 / sqrt(squares / f32(scalars.inputs) + scalars.epsilon);
#else
  let factor = 1.0;
#endif
#if PAIRED
  if (isSecond) {
    out2[outRow(row) * outputs + output] = total * factor;
    return;
  }
#endif
  store(outRow(row), output, total * factor, gated * factor, before);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let count = u32(scalars.count);
  let words = u32(scalars.inputs) / 8u;
  let lane = local % LANES;
  let slot = local / LANES;
#if EXPERTS
  let expert = item % u32(scalars.experts);
  let tile = item / u32(scalars.experts);
  let expertRow = expert * u32(scalars.expertRows);
  let secondShift = u32(scalars.secondRow) * words;
  let span = liveRows(expert, local);
#else
  let tile = item;
  let expertRow = 0u;
  let secondShift = 0u;
  let live = u32(max(rows[0], 0));
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
#for p PER_LANE
  let output$p = tileOutput + slot * PER_LANE + $pu;
  let base$p = (expertRow + min(output$p, outputs - 1u)) * words;
#endfor

#if ACCUMULATE_EARLY
  // What the one row's output is added to, on its way with the weights.
#if PARTS == 1
  let added = min(output0, outputs - 1u);
#else
  let added = min(tileOutput + local, outputs - 1u);
#endif
  let before = out[u32(scalars.begin) + added];
#else
  let before = 0.0;
#endif

#if EXPERTS
  for (var begin = span.begin; begin < span.end; begin += ROWS) {
    let end = span.end;
    var row: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { row[r] = inRow(min(begin + r, end - 1u)); }
#else
  {
    let begin = 0u;
    let end = live;
    var row: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { row[r] = min(r, MOST - 1u); }
#endif
    var sum: array<f32, SUMS>;
    for (var i = 0u; i < SUMS; i++) { sum[i] = 0.0; }
#if GATED
    var gated: array<f32, SUMS>;
    for (var i = 0u; i < SUMS; i++) { gated[i] = 0.0; }
#endif
#if NORMED
    var squares: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { squares[r] = 0.0; }
#endif

#for m MATRICES
#if PAIRED
    if (isSecond == ($mu == 1u)) {
#else
    {
#endif
    for (var start = lane; start < words; start += DEPTH * LANES) {
#for d DEPTH
#if UNEVEN
      let at$d = min(start + $du * LANES, words - 1u);
      let isThere$d = start + $du * LANES < words;
#else
      let at$d = start + $du * LANES;
#endif
#for p PER_LANE
#if $m == 0
      let words$d_$p = fetchFirst(base$p + at$d);
#else
      let words$d_$p = fetchSecond(base$p + at$d);
#endif
#if GATED
      let others$d_$p = fetchSecond(base$p + secondShift + at$d);
#endif
#endfor
#endfor
#for d DEPTH
#if NORMED
      let norm$d = Eight(norm[at$d * 2u], norm[at$d * 2u + 1u]);
#endif
#for p PER_LANE
#if $m == 0
      var weights$d_$p = widenFirst(words$d_$p);
#else
      var weights$d_$p = widenSecond(words$d_$p);
#endif
#if GATED
      var factors$d_$p = widenSecond(others$d_$p);
#endif
#if UNEVEN
      weights$d_$p = onlyIf(isThere$d, weights$d_$p);
#if GATED
      factors$d_$p = onlyIf(isThere$d, factors$d_$p);
#endif
#endif
#endfor
      for (var r = 0u; r < ROWS; r++) {
        let inputs = inputsAt(row[r], at$d);
#if NORMED
#if UNEVEN
        squares[r] += select(0.0, dotEight(inputs, inputs), isThere$d);
#else
        squares[r] += dotEight(inputs, inputs);
#endif
        let met = Eight(inputs.low * norm$d.low, inputs.high * norm$d.high);
#else
        let met = inputs;
#endif
#for p PER_LANE
        sum[r * PER_LANE + $pu] += dotEight(weights$d_$p, met);
#if GATED
        gated[r * PER_LANE + $pu] += dotEight(factors$d_$p, met);
#endif
#endfor
      }
#endfor
    }
    }
#endfor

#if SUBGROUPS
#if NORMED
    for (var r = 0u; r < ROWS; r++) { squares[r] = subgroupAdd(squares[r]); }
#endif
    for (var i = 0u; i < SUMS; i++) { sum[i] = subgroupAdd(sum[i]); }
#if GATED
    for (var i = 0u; i < SUMS; i++) { gated[i] = subgroupAdd(gated[i]); }
#endif
#endif
#if PARTS == 1
    for (var r = 0u; r < ROWS; r++) {
#if NORMED
      let ofRow = squares[r];
#else
      let ofRow = 0.0;
#endif
#for p PER_LANE
      {
        let index = r * PER_LANE + $pu;
#if GATED
        let factor = gated[index];
#else
        let factor = 0.0;
#endif
        if (lane == index % LANES && begin + r < end && output$p < outputs) {
          finish(begin + r, output$p, outputs, isSecond, sum[index], factor, ofRow, before);
        }
      }
#endfor
    }
#else
    // Of a subgroup any invocation hands its sums in.
    let part = lane / (LANES / PARTS);
    for (var i = 0u; i < SUMS; i++) {
      shares[(i * SLOTS + slot) * PITCH + part] = sum[i];
#if GATED
      shares[((SUMS + i) * SLOTS + slot) * PITCH + part] = gated[i];
#endif
    }
#if NORMED
    for (var r = 0u; r < ROWS; r++) { shares[((SHARED - ROWS + r) * SLOTS + slot) * PITCH + part] = squares[r]; }
#endif
    workgroupBarrier();
    for (var i = local; i < ROWS * OUTPUTS; i += 128u) {
      let r = i / OUTPUTS;
      let own = i % OUTPUTS;
      if (begin + r < end && tileOutput + own < outputs) {
        let index = r * PER_LANE + own % PER_LANE;
        let place = own / PER_LANE;
#if GATED
        let gated = slotSum(SUMS + index, place);
#else
        let gated = 0.0;
#endif
#if NORMED
        let squares = slotSum(SHARED - ROWS + r, place);
#else
        let squares = 0.0;
#endif
        finish(begin + r, tileOutput + own, outputs, isSecond, slotSum(index, place), gated, squares, before);
      }
    }
    workgroupBarrier();
#endif
  }
}
