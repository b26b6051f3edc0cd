// Many rows in f16 on the matrix units: 128 rows by 128 outputs a workgroup of 4 subgroups of 32, each with 64 by 64 of them in 16 sums of
// float32; 32 inputs at a time through workgroup memory, the next ones on their way meanwhile. The sums are variables: counted through by a
// loop they took twice the time. INSIDE: every tile lies within `out` and is stored straight to it, else through workgroup memory.
// GATED: 64 outputs of `first` and the same of `second`, out = silu(x·first)·(x·second)·scale in f16.
// Buffers: x f16 [maxRows, inputs], first, out (f32, GATED: f16), rowCount, second. Scalars: inputs, outputs (values from one row of out to
// the next), begin (the first output of this launch), count (its outputs, a multiple of 8), maxRows, scale (of GATED alone).
// Constants: DTYPE (0 bf16, 1 f16), GATED (never INSIDE), INSIDE, ACCUMULATE, EVEN (whether inputs is a multiple of 32).
#include "grid.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4u>;
@group(0) @binding(1) var<storage, read> first: array<vec4u>;
#if GATED
@group(0) @binding(2) var<storage, read_write> out: array<vec4u>;
@group(0) @binding(4) var<storage, read> second: array<vec4u>;
/// Outputs of a tile.
const OUTPUTS = 64u;
#else
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
const OUTPUTS = 128u;
#endif
@group(0) @binding(3) var<storage, read> rowCount: array<i32>;

const ROWS = 128u;
const DEPTH = 32u;
/// f16 values from one row of a tile to the next: 80 bytes, so that 8 rows begin in different banks.
const PITCH = DEPTH + 8u;
/// Words of 8 values that a step takes of a row.
const STEP = DEPTH / 8u;
const PANEL = 256u;

var<workgroup> xTile: array<f16, ROWS * PITCH>;
var<workgroup> weightTile: array<f16, ROWS * PITCH>;
/// Two matrices of every subgroup. NVIDIA's driver (580) stores a matrix to workgroup memory at multiples of 16 bytes only, so no smaller
/// variable may lie before it: the number of rows is shared in here too.
var<workgroup> panels: array<f32, 4u * 2u * PANEL>;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

fn placeX(at: u32, words: vec4u) {
  let a = bitcast<vec4<f16>>(words.xy);
  let b = bitcast<vec4<f16>>(words.zw);
  xTile[at] = a.x;
  xTile[at + 1u] = a.y;
  xTile[at + 2u] = a.z;
  xTile[at + 3u] = a.w;
  xTile[at + 4u] = b.x;
  xTile[at + 5u] = b.y;
  xTile[at + 6u] = b.z;
  xTile[at + 7u] = b.w;
}

#if DTYPE == 0
/// Four neighbouring weights of a matrix in bf16.
fn weightFour(words: vec2u) -> vec4<f16> {
  return vec4<f16>(bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u)));
}
#else
fn weightFour(words: vec2u) -> vec4<f16> { return bitcast<vec4<f16>>(words); }
#endif

fn placeWeights(at: u32, words: vec4u) {
  let a = weightFour(words.xy);
  let b = weightFour(words.zw);
  weightTile[at] = a.x;
  weightTile[at + 1u] = a.y;
  weightTile[at + 2u] = a.z;
  weightTile[at + 3u] = a.w;
  weightTile[at + 4u] = b.x;
  weightTile[at + 5u] = b.y;
  weightTile[at + 6u] = b.z;
  weightTile[at + 7u] = b.w;
}

#if GATED
fn silu(value: f32) -> f32 { return value / (1.0 + exp(-clamp(value, -80.0, 80.0))); }

fn gatedPair(at: u32) -> u32 {
  let up = at + PANEL;
  let value = vec2f(silu(panels[at]) * panels[up], silu(panels[at + 1u]) * panels[up + 1u]) * scalars.scale;
  return pack2x16float(clamp(value, vec2f(-65504.0), vec2f(65504.0)));
}
#endif

/// Writes from the subgroup's two panels: 16 rows by 32 outputs from `corner` on; GATED: by 16, of which the second panel is the factor.
fn write(panel: u32, lane: u32, corner: vec2u) {
  let row = corner.x + lane / 2u;
  if (row >= u32(scalars.maxRows)) { return; }
  let start = panel + lane * 8u;
  let base = row * u32(scalars.outputs) + u32(scalars.begin);
#if GATED
  let column = corner.y + lane % 2u * 8u;
  if (column >= u32(scalars.count)) { return; }
  out[(base + column) / 8u] = vec4u(gatedPair(start), gatedPair(start + 2u), gatedPair(start + 4u), gatedPair(start + 6u));
#else
  for (var i = 0u; i < 16u; i++) {
    let column = corner.y + lane % 2u * 8u + i / 8u * 16u + i % 8u;
    if (column >= u32(scalars.count)) { continue; }
    let value = panels[start + i / 8u * PANEL + i % 8u];
#if ACCUMULATE
    out[base + column] += value;
#else
    out[base + column] = value;
#endif
  }
#endif
}

/// Word `at` of a row that begins at word `base`; zeros past its end.
fn fetchX(base: u32, at: u32) -> vec4u {
#if !EVEN
  if (at >= u32(scalars.inputs) / 8u) { return vec4u(0u); }
#endif
  return x[base + at];
}

fn fetchFirst(base: u32, at: u32) -> vec4u {
#if !EVEN
  if (at >= u32(scalars.inputs) / 8u) { return vec4u(0u); }
#endif
  return first[base + at];
}

#if GATED
fn fetchSecond(base: u32, at: u32) -> vec4u {
#if !EVEN
  if (at >= u32(scalars.inputs) / 8u) { return vec4u(0u); }
#endif
  return second[base + at];
}
#else
fn fetchSecond(base: u32, at: u32) -> vec4u { return fetchFirst(base, at); }
#endif

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (local == 0u) { panels[0] = f32(select(0, max(rowCount[0], 0), item < scalars.grid)); }
  let rows = u32(workgroupUniformLoad(&panels[0]));
  let count = u32(scalars.count);
  let maxRows = u32(scalars.maxRows);
  let blocks = (maxRows + ROWS - 1u) / ROWS;
  // Neighbouring workgroups have the same weights and other rows.
  let output = item / blocks * OUTPUTS;
  let firstRow = item % blocks * ROWS;
  if (firstRow >= rows) { return; }
  let words = u32(scalars.inputs) / 8u;
  // An invocation fetches word local % 4 of row local / 4, and of the rows 32, 64 and 96 further.
  let word = local % STEP;
  let fetched = local / STEP;
  let xBase = min(vec4u(firstRow + fetched) + vec4u(0u, 32u, 64u, 96u), vec4u(maxRows - 1u)) * words;
  // The tile's second half is that of `second`, or further rows of `first`.
#if GATED
  let weightRow = vec4u(output + fetched) + vec4u(0u, 32u, 0u, 32u);
#else
  let weightRow = vec4u(output + fetched) + vec4u(0u, 32u, 64u, 96u);
#endif
  let weightBase = min(weightRow, vec4u(count - 1u)) * words;
  let subgroup = local / 32u;
  let ownRow = subgroup / 2u * 64u;
  let ownOutput = subgroup % 2u * (OUTPUTS / 2u);
#if GATED
  let right2At = (64u + ownOutput) * PITCH;
#else
  let right2At = (32u + ownOutput) * PITCH;
#endif
  let leftAt = ownRow * PITCH;
  let right0At = ownOutput * PITCH;
  var sum00: Sum;
  var sum01: Sum;
  var sum02: Sum;
  var sum03: Sum;
  var sum10: Sum;
  var sum11: Sum;
  var sum12: Sum;
  var sum13: Sum;
  var sum20: Sum;
  var sum21: Sum;
  var sum22: Sum;
  var sum23: Sum;
  var sum30: Sum;
  var sum31: Sum;
  var sum32: Sum;
  var sum33: Sum;
  let corner = vec2u(firstRow + ownRow, output + ownOutput);
#if INSIDE
  let stride = u32(scalars.outputs);
  let outAt = corner.x * stride + u32(scalars.begin) + corner.y;
#if ACCUMULATE
  sum00 = subgroupMatrixLoad<Sum, row_major>(&out, outAt, stride);
  sum01 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 16u, stride);
  sum02 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 32u, stride);
  sum03 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 48u, stride);
  sum10 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 16u * stride, stride);
  sum11 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 16u * stride + 16u, stride);
  sum12 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 16u * stride + 32u, stride);
  sum13 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 16u * stride + 48u, stride);
  sum20 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 32u * stride, stride);
  sum21 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 32u * stride + 16u, stride);
  sum22 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 32u * stride + 32u, stride);
  sum23 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 32u * stride + 48u, stride);
  sum30 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 48u * stride, stride);
  sum31 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 48u * stride + 16u, stride);
  sum32 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 48u * stride + 32u, stride);
  sum33 = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 48u * stride + 48u, stride);
#endif
#endif
  // What comes next, of the four rows of each tile.
  var nextX0 = fetchX(xBase.x, word);
  var nextX1 = fetchX(xBase.y, word);
  var nextX2 = fetchX(xBase.z, word);
  var nextX3 = fetchX(xBase.w, word);
  var nextWeights0 = fetchFirst(weightBase.x, word);
  var nextWeights1 = fetchFirst(weightBase.y, word);
  var nextWeights2 = fetchSecond(weightBase.z, word);
  var nextWeights3 = fetchSecond(weightBase.w, word);
  let at = fetched * PITCH + word * 8u;
  for (var base = 0u; base < words; base += STEP) {
    workgroupBarrier();
    placeX(at, nextX0);
    placeX(at + 32u * PITCH, nextX1);
    placeX(at + 64u * PITCH, nextX2);
    placeX(at + 96u * PITCH, nextX3);
    placeWeights(at, nextWeights0);
    placeWeights(at + 32u * PITCH, nextWeights1);
    placeWeights(at + 64u * PITCH, nextWeights2);
    placeWeights(at + 96u * PITCH, nextWeights3);
    workgroupBarrier();
#if EVEN
    // The last step fetches its own words once more.
    let next = min(base + STEP, words - STEP) + word;
#else
    let next = base + STEP + word;
#endif
    nextX0 = fetchX(xBase.x, next);
    nextX1 = fetchX(xBase.y, next);
    nextX2 = fetchX(xBase.z, next);
    nextX3 = fetchX(xBase.w, next);
    nextWeights0 = fetchFirst(weightBase.x, next);
    nextWeights1 = fetchFirst(weightBase.y, next);
    nextWeights2 = fetchSecond(weightBase.z, next);
    nextWeights3 = fetchSecond(weightBase.w, next);
    // Both halves of the step by hand: a loop took twice the time.
    let right0x0 = subgroupMatrixLoad<Right, col_major>(&weightTile, right0At, PITCH);
    let right0x1 = subgroupMatrixLoad<Right, col_major>(&weightTile, right0At + 16u * PITCH, PITCH);
    let right0x2 = subgroupMatrixLoad<Right, col_major>(&weightTile, right2At, PITCH);
    let right0x3 = subgroupMatrixLoad<Right, col_major>(&weightTile, right2At + 16u * PITCH, PITCH);
    let left0x0 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt, PITCH);
    sum00 = subgroupMatrixMultiplyAccumulate(left0x0, right0x0, sum00);
    sum01 = subgroupMatrixMultiplyAccumulate(left0x0, right0x1, sum01);
    sum02 = subgroupMatrixMultiplyAccumulate(left0x0, right0x2, sum02);
    sum03 = subgroupMatrixMultiplyAccumulate(left0x0, right0x3, sum03);
    let left0x1 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + 16u * PITCH, PITCH);
    sum10 = subgroupMatrixMultiplyAccumulate(left0x1, right0x0, sum10);
    sum11 = subgroupMatrixMultiplyAccumulate(left0x1, right0x1, sum11);
    sum12 = subgroupMatrixMultiplyAccumulate(left0x1, right0x2, sum12);
    sum13 = subgroupMatrixMultiplyAccumulate(left0x1, right0x3, sum13);
    let left0x2 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + 32u * PITCH, PITCH);
    sum20 = subgroupMatrixMultiplyAccumulate(left0x2, right0x0, sum20);
    sum21 = subgroupMatrixMultiplyAccumulate(left0x2, right0x1, sum21);
    sum22 = subgroupMatrixMultiplyAccumulate(left0x2, right0x2, sum22);
    sum23 = subgroupMatrixMultiplyAccumulate(left0x2, right0x3, sum23);
    let left0x3 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + 48u * PITCH, PITCH);
    sum30 = subgroupMatrixMultiplyAccumulate(left0x3, right0x0, sum30);
    sum31 = subgroupMatrixMultiplyAccumulate(left0x3, right0x1, sum31);
    sum32 = subgroupMatrixMultiplyAccumulate(left0x3, right0x2, sum32);
    sum33 = subgroupMatrixMultiplyAccumulate(left0x3, right0x3, sum33);
    let right16x0 = subgroupMatrixLoad<Right, col_major>(&weightTile, right0At + 16u, PITCH);
    let right16x1 = subgroupMatrixLoad<Right, col_major>(&weightTile, right0At + 16u * PITCH + 16u, PITCH);
    let right16x2 = subgroupMatrixLoad<Right, col_major>(&weightTile, right2At + 16u, PITCH);
    let right16x3 = subgroupMatrixLoad<Right, col_major>(&weightTile, right2At + 16u * PITCH + 16u, PITCH);
    let left16x0 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + 16u, PITCH);
    sum00 = subgroupMatrixMultiplyAccumulate(left16x0, right16x0, sum00);
    sum01 = subgroupMatrixMultiplyAccumulate(left16x0, right16x1, sum01);
    sum02 = subgroupMatrixMultiplyAccumulate(left16x0, right16x2, sum02);
    sum03 = subgroupMatrixMultiplyAccumulate(left16x0, right16x3, sum03);
    let left16x1 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + 16u * PITCH + 16u, PITCH);
    sum10 = subgroupMatrixMultiplyAccumulate(left16x1, right16x0, sum10);
    sum11 = subgroupMatrixMultiplyAccumulate(left16x1, right16x1, sum11);
    sum12 = subgroupMatrixMultiplyAccumulate(left16x1, right16x2, sum12);
    sum13 = subgroupMatrixMultiplyAccumulate(left16x1, right16x3, sum13);
    let left16x2 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + 32u * PITCH + 16u, PITCH);
    sum20 = subgroupMatrixMultiplyAccumulate(left16x2, right16x0, sum20);
    sum21 = subgroupMatrixMultiplyAccumulate(left16x2, right16x1, sum21);
    sum22 = subgroupMatrixMultiplyAccumulate(left16x2, right16x2, sum22);
    sum23 = subgroupMatrixMultiplyAccumulate(left16x2, right16x3, sum23);
    let left16x3 = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + 48u * PITCH + 16u, PITCH);
    sum30 = subgroupMatrixMultiplyAccumulate(left16x3, right16x0, sum30);
    sum31 = subgroupMatrixMultiplyAccumulate(left16x3, right16x1, sum31);
    sum32 = subgroupMatrixMultiplyAccumulate(left16x3, right16x2, sum32);
    sum33 = subgroupMatrixMultiplyAccumulate(left16x3, right16x3, sum33);
  }
#if INSIDE
  subgroupMatrixStore<row_major>(&out, outAt, sum00, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 16u, sum01, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 32u, sum02, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 48u, sum03, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 16u * stride, sum10, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 16u * stride + 16u, sum11, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 16u * stride + 32u, sum12, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 16u * stride + 48u, sum13, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 32u * stride, sum20, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 32u * stride + 16u, sum21, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 32u * stride + 32u, sum22, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 32u * stride + 48u, sum23, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 48u * stride, sum30, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 48u * stride + 16u, sum31, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 48u * stride + 32u, sum32, stride);
  subgroupMatrixStore<row_major>(&out, outAt + 48u * stride + 48u, sum33, stride);
#else
  let panel = subgroup * 2u * PANEL;
  let lane = local % 32u;
#if GATED
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum00, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum02, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(0u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum01, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum03, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(0u, 16u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum10, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum12, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(16u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum11, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum13, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(16u, 16u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum20, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum22, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(32u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum21, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum23, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(32u, 16u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum30, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum32, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(48u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum31, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum33, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(48u, 16u));
#else
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum00, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum01, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(0u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum02, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum03, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(0u, 32u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum10, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum11, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(16u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum12, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum13, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(16u, 32u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum20, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum21, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(32u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum22, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum23, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(32u, 32u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum30, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum31, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(48u, 0u));
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&panels, panel, sum32, 16u);
  subgroupMatrixStore<row_major>(&panels, panel + PANEL, sum33, 16u);
  workgroupBarrier();
  write(panel, lane, corner + vec2u(48u, 32u));
#endif
#endif
}
