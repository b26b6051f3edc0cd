// Many rows: 64 rows by 64 outputs a workgroup, 16 inputs at a time through workgroup memory, four by four a invocation. With EXPERTS a
// workgroup goes through all rows of its expert, else through one block of them. Every 256 inputs the sums are added to totals, which keeps
// the rounding of long sums small.
#include "grid.wgsl"
#include "projection.wgsl"

const TILE = 64u;
const DEPTH = 16u;
/// Vectors from one input to the next: 17 keeps the writes of neighbouring inputs apart.
const PITCH = 17u;

var<workgroup> xTile: array<vec4f, DEPTH * PITCH>;
var<workgroup> firstTile: array<vec4f, DEPTH * PITCH>;
#if GATED
var<workgroup> secondTile: array<vec4f, DEPTH * PITCH>;
#endif

/// Weight `at` of a matrix, of which `word` is the 16-byte word.
fn weightOf(word: vec4u, dtype: u32, at: u32) -> f32 {
  if (dtype == 2u) { return bitcast<f32>(word[at % 4u]); }
  let pair = word[at % 8u / 2u];
  if (dtype == 1u) { return unpack2x16float(pair)[at % 2u]; }
  return bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, at % 2u == 1u));
}

fn firstWeight(at: u32) -> f32 {
  return weightOf(first[at / select(8u, 4u, FIRST_DTYPE == 2)], FIRST_DTYPE, at);
}

#if GATED
fn secondWeight(at: u32) -> f32 {
  return weightOf(second[at / select(8u, 4u, SECOND_DTYPE == 2)], SECOND_DTYPE, at);
}
#endif

fn oneInput(row: u32, at: u32) -> f32 {
#if X_VECTORS
  return x[row * (u32(scalars.xStride) / 4u) + at / 4u][at % 4u];
#else
  return x[row * u32(scalars.xStride) + at];
#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let count = u32(scalars.count);
  let inputs = u32(scalars.inputs);
  let panels = (count + TILE - 1u) / TILE;
  let output = item % panels * TILE;
#if EXPERTS
  let expert = item / panels;
  let span = liveRows(expert, local);
  let weightBase = expert * u32(scalars.expertRows);
  let secondShift = u32(scalars.secondRow) * inputs;
  let firstRow = span.begin;
  let endRow = span.end;
#else
  let span = liveRows(0u, local);
  let weightBase = 0u;
  let secondShift = 0u;
  let firstRow = item / panels * TILE;
  let endRow = min(span.end, firstRow + TILE);
#endif
  let depth = local % DEPTH;
  let four = local / DEPTH;
  var weightRow: array<u32, 4>;
  for (var i = 0u; i < 4u; i++) {
    weightRow[i] = (weightBase + min(output + four * 4u + i, count - 1u)) * inputs;
  }
  for (var begin = firstRow; begin < endRow; begin += TILE) {
    var xRow: array<u32, 4>;
    for (var i = 0u; i < 4u; i++) { xRow[i] = inRow(min(begin + four * 4u + i, endRow - 1u)); }
    var sum: array<vec4f, 4>;
    var total: array<vec4f, 4>;
#if GATED
    var gated: array<vec4f, 4>;
    var gatedTotal: array<vec4f, 4>;
#endif
    for (var i = 0u; i < 4u; i++) {
      sum[i] = vec4f(0);
      total[i] = vec4f(0);
#if GATED
      gated[i] = vec4f(0);
      gatedTotal[i] = vec4f(0);
#endif
    }
    for (var base = 0u; base < inputs; base += DEPTH) {
      let at = base + depth;
      var xs = vec4f(0);
      var ws = vec4f(0);
#if GATED
      var us = vec4f(0);
#endif
      if (at < inputs) {
        xs = vec4f(oneInput(xRow[0], at), oneInput(xRow[1], at), oneInput(xRow[2], at), oneInput(xRow[3], at));
        ws = vec4f(firstWeight(weightRow[0] + at), firstWeight(weightRow[1] + at), firstWeight(weightRow[2] + at),
                   firstWeight(weightRow[3] + at));
#if GATED
        us = vec4f(secondWeight(weightRow[0] + secondShift + at), secondWeight(weightRow[1] + secondShift + at), secondWeight(weightRow[2] + secondShift + at),
                   secondWeight(weightRow[3] + secondShift + at));
#endif
      }
      workgroupBarrier();
      xTile[depth * PITCH + four] = xs;
      firstTile[depth * PITCH + four] = ws;
#if GATED
      secondTile[depth * PITCH + four] = us;
#endif
      workgroupBarrier();
      for (var k = 0u; k < DEPTH; k++) {
        let a = xTile[k * PITCH + local / 16u];
        let b = firstTile[k * PITCH + local % 16u];
        for (var i = 0u; i < 4u; i++) { sum[i] = fma(vec4f(a[i]), b, sum[i]); }
#if GATED
        let c = secondTile[k * PITCH + local % 16u];
        for (var i = 0u; i < 4u; i++) { gated[i] = fma(vec4f(a[i]), c, gated[i]); }
#endif
      }
      if (base % 256u == 256u - DEPTH || base + DEPTH >= inputs) {
        for (var i = 0u; i < 4u; i++) {
          total[i] += sum[i];
          sum[i] = vec4f(0);
#if GATED
          gatedTotal[i] += gated[i];
          gated[i] = vec4f(0);
#endif
        }
      }
    }
    for (var i = 0u; i < 4u; i++) {
      let row = begin + local / 16u * 4u + i;
      if (row >= endRow) { continue; }
      for (var j = 0u; j < 4u; j++) {
        let column = output + local % 16u * 4u + j;
        if (column >= count) { continue; }
#if GATED
        store(outRow(row), column, total[i][j], gatedTotal[i][j], 0.0);
#else
        store(outRow(row), column, total[i][j], 0.0, 0.0);
#endif
      }
    }
  }
}
