// Many rows in f16 on the matrix units: 128 rows by 128 outputs a workgroup of 8 subgroups of 32, each with 64 rows by 32 outputs; 32 inputs at
// a time through workgroup memory, the next ones on their way meanwhile. Sums are float32. The eight sums are variables: counted through by a
// loop they took twice the time.
// Buffers: x f16 [maxRows, inputs], weight, out (f32, or f16 with NARROW), rowCount. Scalars: inputs, outputs (values from one row of out to
// the next), begin (the first output of this launch), count (its outputs, a multiple of 8), maxRows, scale.
#include "grid.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4u>;
@group(0) @binding(1) var<storage, read> first: array<vec4u>;
#if NARROW
@group(0) @binding(2) var<storage, read_write> out: array<vec4u>;
#else
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;
#endif
@group(0) @binding(3) var<storage, read> rowCount: array<i32>;

const TILE = 128u;
/// f16 values from one row of a tile to the next: 80 bytes, so that 8 rows begin in different banks.
const DEPTH = 32u;
const PITCH = DEPTH + 8u;
const PANEL = 16u;

var<workgroup> xTile: array<f16, TILE * PITCH>;
var<workgroup> weightTile: array<f16, TILE * PITCH>;
/// Matrices are stored at multiples of 16 bytes only, so no smaller variable may lie before it: the number of rows is shared in here too.
var<workgroup> results: array<f32, 16u * PANEL * PANEL>;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

/// Two neighbouring values of a word as float32.
fn weightPair(word: u32) -> vec2f {
#if DTYPE == 0
  return bitcast<vec2f>(vec2u(word << 16u, word & 0xffff0000u));
#else
  return unpack2x16float(word);
#endif
}

fn placeX(at: u32, word: u32) {
  let pair = unpack2x16float(word);
  xTile[at] = f16(pair.x);
  xTile[at + 1u] = f16(pair.y);
}

fn placeWeights(at: u32, word: u32) {
  let pair = weightPair(word);
  weightTile[at] = f16(pair.x);
  weightTile[at + 1u] = f16(pair.y);
}

/// Writes 16 rows by 16 outputs of a subgroup from `results`, eight values by each lane.
fn write(panel: u32, lane: u32, corner: vec2u, rows: u32) {
  let row = corner.x + lane / 2u;
  let column = corner.y + lane % 2u * 8u;
  if (row >= rows || column >= u32(scalars.count)) { return; }
  let begin = panel + lane * 8u;
  var low = vec4f(results[begin], results[begin + 1u], results[begin + 2u], results[begin + 3u]) * scalars.scale;
  var high = vec4f(results[begin + 4u], results[begin + 5u], results[begin + 6u], results[begin + 7u]) * scalars.scale;
  let at = (row * u32(scalars.outputs) + u32(scalars.begin) + column) / 4u;
#if NARROW
  let limit = vec4f(65504.0);
  low = clamp(low, -limit, limit);
  high = clamp(high, -limit, limit);
  out[at / 2u] = vec4u(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
#else
#if ACCUMULATE
  low += out[at];
  high += out[at + 1u];
#endif
  out[at] = low;
  out[at + 1u] = high;
#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (local == 0u) { results[0] = f32(select(0, max(rowCount[0], 0), item < scalars.grid)); }
  let rows = u32(workgroupUniformLoad(&results[0]));
  let count = u32(scalars.count);
  let blocks = (u32(scalars.maxRows) + TILE - 1u) / TILE;
  // Neighbouring workgroups have the same weights and other rows.
  let output = item / blocks * TILE;
  let firstRow = item % blocks * TILE;
  if (firstRow >= rows) { return; }
  let words = u32(scalars.inputs) / 8u;
  // An invocation fetches word local % 4 of row local / 4, and of the row 64 further.
  let word = local % 4u;
  let fetched = local / 4u;
  let xBase = min(vec2u(firstRow + fetched, firstRow + fetched + 64u), vec2u(u32(scalars.maxRows) - 1u)) * words;
  let weightBase = min(vec2u(output + fetched, output + fetched + 64u), vec2u(count - 1u)) * words;
  let subgroup = local / 32u;
  let ownRow = subgroup / 4u * 64u;
  let ownOutput = subgroup % 4u * 32u;
  var sum00: Sum;
  var sum01: Sum;
  var sum10: Sum;
  var sum11: Sum;
  var sum20: Sum;
  var sum21: Sum;
  var sum30: Sum;
  var sum31: Sum;
  // What comes next, of both rows.
  var nextX0 = vec4u(0u);
  var nextX1 = vec4u(0u);
  var nextWeights0 = vec4u(0u);
  var nextWeights1 = vec4u(0u);
  if (word < words) {
    nextX0 = x[xBase.x + word];
    nextX1 = x[xBase.y + word];
    nextWeights0 = first[weightBase.x + word];
    nextWeights1 = first[weightBase.y + word];
  }
  let at = fetched * PITCH + word * 8u;
  for (var base = 0u; base < words; base += DEPTH / 8u) {
    workgroupBarrier();
    placeX(at + 0u, nextX0.x);
    placeX(at + 2u, nextX0.y);
    placeX(at + 4u, nextX0.z);
    placeX(at + 6u, nextX0.w);
    placeX(at + 0u + 64u * PITCH, nextX1.x);
    placeX(at + 2u + 64u * PITCH, nextX1.y);
    placeX(at + 4u + 64u * PITCH, nextX1.z);
    placeX(at + 6u + 64u * PITCH, nextX1.w);
    placeWeights(at + 0u, nextWeights0.x);
    placeWeights(at + 2u, nextWeights0.y);
    placeWeights(at + 4u, nextWeights0.z);
    placeWeights(at + 6u, nextWeights0.w);
    placeWeights(at + 0u + 64u * PITCH, nextWeights1.x);
    placeWeights(at + 2u + 64u * PITCH, nextWeights1.y);
    placeWeights(at + 4u + 64u * PITCH, nextWeights1.z);
    placeWeights(at + 6u + 64u * PITCH, nextWeights1.w);
    workgroupBarrier();
    let next = base + DEPTH / 8u + word;
    nextX0 = vec4u(0u);
    nextX1 = vec4u(0u);
    nextWeights0 = vec4u(0u);
    nextWeights1 = vec4u(0u);
    if (next < words) {
      nextX0 = x[xBase.x + next];
      nextX1 = x[xBase.y + next];
      nextWeights0 = first[weightBase.x + next];
      nextWeights1 = first[weightBase.y + next];
    }
    for (var k = 0u; k < DEPTH; k += 16u) {
      let right0 = subgroupMatrixLoad<Right>(&weightTile, ownOutput * PITCH + k, true, PITCH);
      let right1 = subgroupMatrixLoad<Right>(&weightTile, (ownOutput + 16u) * PITCH + k, true, PITCH);
      let left0 = subgroupMatrixLoad<Left>(&xTile, (ownRow + 0u) * PITCH + k, false, PITCH);
      sum00 = subgroupMatrixMultiplyAccumulate(left0, right0, sum00);
      sum01 = subgroupMatrixMultiplyAccumulate(left0, right1, sum01);
      let left1 = subgroupMatrixLoad<Left>(&xTile, (ownRow + 16u) * PITCH + k, false, PITCH);
      sum10 = subgroupMatrixMultiplyAccumulate(left1, right0, sum10);
      sum11 = subgroupMatrixMultiplyAccumulate(left1, right1, sum11);
      let left2 = subgroupMatrixLoad<Left>(&xTile, (ownRow + 32u) * PITCH + k, false, PITCH);
      sum20 = subgroupMatrixMultiplyAccumulate(left2, right0, sum20);
      sum21 = subgroupMatrixMultiplyAccumulate(left2, right1, sum21);
      let left3 = subgroupMatrixLoad<Left>(&xTile, (ownRow + 48u) * PITCH + k, false, PITCH);
      sum30 = subgroupMatrixMultiplyAccumulate(left3, right0, sum30);
      sum31 = subgroupMatrixMultiplyAccumulate(left3, right1, sum31);
    }
  }
  let panel = subgroup * 2u * PANEL * PANEL;
  let corner = vec2u(firstRow + ownRow, output + ownOutput);
  workgroupBarrier();
  subgroupMatrixStore(&results, panel, sum00, false, PANEL);
  subgroupMatrixStore(&results, panel + PANEL * PANEL, sum01, false, PANEL);
  workgroupBarrier();
  write(panel, local % 32u, corner + vec2u(0u, 0u), rows);
  write(panel + PANEL * PANEL, local % 32u, corner + vec2u(0u, 16u), rows);
  workgroupBarrier();
  subgroupMatrixStore(&results, panel, sum10, false, PANEL);
  subgroupMatrixStore(&results, panel + PANEL * PANEL, sum11, false, PANEL);
  workgroupBarrier();
  write(panel, local % 32u, corner + vec2u(16u, 0u), rows);
  write(panel + PANEL * PANEL, local % 32u, corner + vec2u(16u, 16u), rows);
  workgroupBarrier();
  subgroupMatrixStore(&results, panel, sum20, false, PANEL);
  subgroupMatrixStore(&results, panel + PANEL * PANEL, sum21, false, PANEL);
  workgroupBarrier();
  write(panel, local % 32u, corner + vec2u(32u, 0u), rows);
  write(panel + PANEL * PANEL, local % 32u, corner + vec2u(32u, 16u), rows);
  workgroupBarrier();
  subgroupMatrixStore(&results, panel, sum30, false, PANEL);
  subgroupMatrixStore(&results, panel + PANEL * PANEL, sum31, false, PANEL);
  workgroupBarrier();
  write(panel, local % 32u, corner + vec2u(48u, 0u), rows);
  write(panel + PANEL * PANEL, local % 32u, corner + vec2u(48u, 16u), rows);
}
