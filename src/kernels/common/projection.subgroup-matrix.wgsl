// Many rows in f16 on the matrix units: ROWS rows by WEIGHT_ROWS outputs a workgroup, 16 · ROW_MATRICES by 32 · PAIRS a subgroup, which sums in
// float32; 32 inputs at a time through workgroup memory, the next ones on their way meanwhile. INSIDE: every tile lies within `out` and is
// stored straight to it, else through workgroup memory. GATED: half of the tile's outputs are those of `first`, half the same of `second`,
// out = silu(x·first)·(x·second)·scale in f16.
// Buffers: x f16 [maxRows, inputs], first, out (f32, GATED: f16), rowCount, second. Scalars: inputs, outputs (values from one row of out to
// the next), begin (the first output of this launch), count (its outputs, a multiple of 8), maxRows, scale (of GATED alone).
// Constants: DTYPE (0 bf16, 1 f16), GATED (never INSIDE), INSIDE, ACCUMULATE, EVEN (whether inputs is a multiple of 32); ROW_MATRICES, PAIRS,
// TURNS (subgroups that use the same panels one after the other), ROW_GROUPS, OUTPUT_GROUPS (subgroups along the rows and outputs), X_FETCHES = ROWS · STEP / WORKGROUP, WEIGHT_FETCHES likewise of half a tile.
//
// How values reach workgroup memory decides the speed: as pairs taken from words, by indices whose range the compiler sees in `main`, NVIDIA's
// stores them 8 bytes at a time; by a function of the index, or from vectors of four, 2 bytes at a time, at 0.42 of the speed.
#include "grid.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec4u>;
@group(0) @binding(1) var<storage, read> first: array<vec4u>;
#if GATED
@group(0) @binding(2) var<storage, read_write> out: array<vec4u>;
@group(0) @binding(4) var<storage, read> second: array<vec4u>;
#else
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
#endif
@group(0) @binding(3) var<storage, read> rowCount: array<i32>;

const SUBGROUPS = ROW_GROUPS * OUTPUT_GROUPS;
const WORKGROUP = 32u * SUBGROUPS;
const ROWS = 16u * ROW_MATRICES * ROW_GROUPS;
const WEIGHT_ROWS = 32u * PAIRS * OUTPUT_GROUPS;
const DEPTH = 32u;
/// f16 values from one row of a tile to the next: 80 bytes, so that 8 rows begin in different banks.
const PITCH = DEPTH + 8u;
/// Words of 8 values that a step takes of a row.
const STEP = DEPTH / 8u;
/// Rows of a tile that the workgroup fetches at once.
const FETCHED = WORKGROUP / STEP;
const PANEL = 256u;
#if GATED
const OUTPUTS = WEIGHT_ROWS / 2u;
/// Rows of the tile from a pair's first matrix to its second, and from pair to pair.
const ACROSS = WEIGHT_ROWS / 2u;
const ALONG = 16u;
#else
const OUTPUTS = WEIGHT_ROWS;
const ACROSS = 16u;
const ALONG = 32u;
#endif

var<workgroup> xTile: array<f16, ROWS * PITCH>;
var<workgroup> weightTile: array<f16, WEIGHT_ROWS * PITCH>;
/// A pair of matrices of every TURNS-th subgroup. NVIDIA's driver (580) stores a matrix to workgroup memory at multiples of 16 bytes only, so no
/// smaller variable may lie before it: the number of rows is shared in here too.
#if INSIDE
var<workgroup> panels: array<f32, 4>;
#else
var<workgroup> panels: array<f32, SUBGROUPS / TURNS * 2u * PANEL>;
#endif

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

#if GATED
fn silu(value: f32) -> f32 { return value / (1.0 + exp(-clamp(value, -80.0, 80.0))); }

fn gatedPair(at: u32) -> u32 {
  let up = at + PANEL;
  let value = vec2f(silu(panels[at]) * panels[up], silu(panels[at + 1u]) * panels[up + 1u]) * scalars.scale;
  return pack2x16float(clamp(value, vec2f(-65504.0), vec2f(65504.0)));
}
#endif

#if !INSIDE
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
#endif

/// Word `at` of a row that begins at word `base`; zeros past its end.
fn fetchX(base: u32, at: u32) -> vec4u {
#if !EVEN
  if (at >= u32(scalars.inputs) / 8u) { return vec4u(0u); }
#endif
  return x[base + at];
}

/// The same of one half of the tile of weights.
fn fetch0(base: u32, at: u32) -> vec4u {
#if !EVEN
  if (at >= u32(scalars.inputs) / 8u) { return vec4u(0u); }
#endif
  return first[base + at];
}

#if GATED
fn fetch1(base: u32, at: u32) -> vec4u {
#if !EVEN
  if (at >= u32(scalars.inputs) / 8u) { return vec4u(0u); }
#endif
  return second[base + at];
}
#else
fn fetch1(base: u32, at: u32) -> vec4u { return fetch0(base, at); }
#endif

/// Two neighbouring weights.
#if DTYPE == 0
fn weightPair(word: u32) -> vec2h { return vec2h(bitcast<vec2f>(vec2u(word << 16u, word & 0xffff0000u))); }
#else
fn weightPair(word: u32) -> vec2h { return bitcast<vec2h>(word); }
#endif

@compute @workgroup_size(WORKGROUP)
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
  // An invocation fetches word local % 4 of every FETCHED-th row from local / 4 on.
  let word = local % STEP;
  let fetched = local / STEP;
#for i X_FETCHES
  let xBase$i = min(firstRow + fetched + $iu * FETCHED, maxRows - 1u) * words;
  var nextX$i = fetchX(xBase$i, word);
#endfor
#for i WEIGHT_FETCHES
  let base0_$i = min(output + fetched + $iu * FETCHED, count - 1u) * words;
#if GATED
  let base1_$i = base0_$i;
#else
  let base1_$i = min(output + WEIGHT_ROWS / 2u + fetched + $iu * FETCHED, count - 1u) * words;
#endif
#for half 2
  var next$half_$i = fetch$half(base$half_$i, word);
#endfor
#endfor
  let subgroup = local / 32u;
  let ownRow = subgroup / OUTPUT_GROUPS * (16u * ROW_MATRICES);
  let ownOutput = subgroup % OUTPUT_GROUPS * (ALONG * PAIRS);
  let corner = vec2u(firstRow + ownRow, output + ownOutput);
  let stride = u32(scalars.outputs);
  let outAt = corner.x * stride + u32(scalars.begin) + corner.y;
#for i ROW_MATRICES
#for j PAIRS
#for s 2
  var sum$i_$j_$s: Sum;
#if INSIDE
#if ACCUMULATE
  sum$i_$j_$s = subgroupMatrixLoad<Sum, row_major>(&out, outAt + 16u * $iu * stride + (ALONG * $ju + ACROSS * $su), stride);
#endif
#endif
#endfor
#endfor
#endfor
  let at = fetched * PITCH + word * 8u;
  let leftAt = ownRow * PITCH;
  let rightAt = ownOutput * PITCH;
  for (var base = 0u; base < words; base += STEP) {
    workgroupBarrier();
#for i X_FETCHES
#for w 4
    let x$i_$w = bitcast<vec2h>(nextX$i[$w]);
    xTile[at + (FETCHED * PITCH * $iu + 2u * $wu)] = x$i_$w.x;
    xTile[at + (FETCHED * PITCH * $iu + 2u * $wu + 1u)] = x$i_$w.y;
#endfor
#endfor
#for half 2
#for i WEIGHT_FETCHES
#for w 4
    let weight$half_$i_$w = weightPair(next$half_$i[$w]);
    weightTile[at + ((WEIGHT_ROWS / 2u * $halfu + FETCHED * $iu) * PITCH + 2u * $wu)] = weight$half_$i_$w.x;
    weightTile[at + ((WEIGHT_ROWS / 2u * $halfu + FETCHED * $iu) * PITCH + 2u * $wu + 1u)] = weight$half_$i_$w.y;
#endfor
#endfor
#endfor
    workgroupBarrier();
#if EVEN
    // The last step fetches its own words once more.
    let next = min(base + STEP, words - STEP) + word;
#else
    let next = base + STEP + word;
#endif
#for i X_FETCHES
    nextX$i = fetchX(xBase$i, next);
#endfor
#for i WEIGHT_FETCHES
#for half 2
    next$half_$i = fetch$half(base$half_$i, next);
#endfor
#endfor
#for k 2
#for j PAIRS
#for s 2
    let right$k_$j_$s = subgroupMatrixLoad<Right, col_major>(&weightTile, rightAt + ((ALONG * $ju + ACROSS * $su) * PITCH + 16u * $ku), PITCH);
#endfor
#endfor
#for i ROW_MATRICES
    let left$k_$i = subgroupMatrixLoad<Left, row_major>(&xTile, leftAt + (16u * $iu * PITCH + 16u * $ku), PITCH);
#for j PAIRS
#for s 2
    sum$i_$j_$s = subgroupMatrixMultiplyAccumulate(left$k_$i, right$k_$j_$s, sum$i_$j_$s);
#endfor
#endfor
#endfor
#endfor
  }
#if INSIDE
#for i ROW_MATRICES
#for j PAIRS
#for s 2
  subgroupMatrixStore<row_major>(&out, outAt + 16u * $iu * stride + (ALONG * $ju + ACROSS * $su), sum$i_$j_$s, stride);
#endfor
#endfor
#endfor
#else
  let panel = subgroup / TURNS * 2u * PANEL;
#for i ROW_MATRICES
#for j PAIRS
#for turn TURNS
  workgroupBarrier();
  if (subgroup % TURNS == $turnu) {
#for s 2
    subgroupMatrixStore<row_major>(&panels, panel + PANEL * $su, sum$i_$j_$s, 16u);
#endfor
  }
  workgroupBarrier();
  if (subgroup % TURNS == $turnu) { write(panel, local % 32u, corner + vec2u(16u * $iu, ALONG * $ju)); }
#endfor
#endfor
#endfor
#endif
}
