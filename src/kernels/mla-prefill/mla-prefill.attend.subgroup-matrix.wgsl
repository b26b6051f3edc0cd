// Causal attention of 16 · SUBGROUPS queries of one head over expanded keys and values in f16, 32 tokens a tile, on subgroup matrices. A
// subgroup has 16 queries: they and their outputs stay in registers; keys and values pass through workgroup memory, the next tile's on
// their way meanwhile. Workgroups are (block of queries, head of the group), the longest first.
//
// The maximum that sums are relative to lags: it moves only where a row's scores exceed it by more than 2^8, so that the outputs are
// rarely rescaled, for which they pass through workgroup memory.
//
// Constants: LATENT, ROPE, LATENT_DTYPE, PAGE_SIZE; NOPE, VALUE; SUBGROUPS (8 or 4); QUERY_STEPS = (NOPE + ROPE) / 16,
// OUTPUTS = VALUE / 16; fetches of an invocation, ⌈width / 8 / LANES⌉: NOPE_FETCHES, ROPE_FETCHES, VALUE_FETCHES.
#include "../common/grid.wgsl"
#include "../common/latent-octs.wgsl"

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> cache: array<LatentWords>;
@group(0) @binding(2) var<storage, read> blockTable: array<i32>;
@group(0) @binding(3) var<storage, read> cacheSeqlens: array<i32>;
@group(0) @binding(4) var<storage, read> rowCount: array<i32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(SCRATCH) var<storage, read> scratch: array<vec4u>;

const TILE = 32u;
const WORKGROUP = 32u * SUBGROUPS;
const ROWS = 16u * SUBGROUPS;
const LOWEST = -1e30;
const LAG = 8.0;
const ALL = 0xffffffffu;
/// Invocations that fetch a token's keys and values.
const LANES = SUBGROUPS;
const KEY_WIDTH = NOPE + ROPE;
const KEY_OCTS = KEY_WIDTH / 8u;
const VALUE_OCTS = VALUE / 8u;
const EXPANDED_OCTS = (NOPE + VALUE) / 8u;
const KEY_STRIDE = KEY_WIDTH + 8u;
const VALUE_STRIDE = VALUE + 8u;
const PROBABILITY_STRIDE = TILE + 8u;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// NVIDIA's driver stores matrices at multiples of 16 bytes only, so every variable has such a size.
/// Before the first tile, queries.
var<workgroup> keys: array<f16, TILE * KEY_STRIDE>;
var<workgroup> values: array<f16, TILE * VALUE_STRIDE>;
/// [subgroup, half of the tile, 16, 16]; also where outputs are rescaled and leave.
var<workgroup> scores: array<f32, SUBGROUPS * 512u>;
/// [subgroup, 16, TILE].
var<workgroup> probabilities: array<f16, SUBGROUPS * 16u * PROBABILITY_STRIDE>;
var<workgroup> rescale: array<f32, ROWS>;
var<workgroup> grown: array<u32, 4>;

/// Within f16's range.
fn clampFour(value: vec4f) -> vec4f { return clamp(value, vec4f(-65504.0), vec4f(65504.0)); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let groupHeads = u32(scalars.groupHeads);
  let blocks = scalars.grid / groupHeads;
  let head = item % groupHeads;
  let firstRow = (blocks - 1u - item / groupHeads) * ROWS;
  let rowCountHere = u32(max(rowCount[0], 0));
  if (firstRow >= rowCountHere) { return; }
  let rows = min(ROWS, rowCountHere - firstRow);
  let cached = min(cacheSeqlens[0], scalars.tokens);
  // What the first row of the block sees.
  let seenFirst = cached - i32(rowCountHere) + i32(firstRow) + 1;
  let end = u32(max(seenFirst + i32(rows) - 1, 0));
  let heads = u32(scalars.heads);
  let base = head * u32(scalars.tokens);
  let subgroup = local / 32u;
  let inSubgroup = local % 32u;

  // Queries, 32 rows at a time.
#for i QUERY_STEPS
  var query$i: Left;
#endfor
  for (var turn = 0u; turn < SUBGROUPS / 2u; turn++) {
    for (var i = 0u; i < (TILE * KEY_OCTS + WORKGROUP - 1u) / WORKGROUP; i++) {
      let at = min(local + i * WORKGROUP, TILE * KEY_OCTS - 1u);
      let row = turn * TILE + at / KEY_OCTS;
      let source = (((firstRow + min(row, rows - 1u)) * heads + u32(scalars.firstHead) + head) * KEY_OCTS + at % KEY_OCTS) * 2u;
      let mask = select(0u, ALL, row < rows);
      let words = vec4u(packFour(clampFour(q[source])), packFour(clampFour(q[source + 1u]))) & vec4u(mask);
      let to = at / KEY_OCTS * KEY_STRIDE + at % KEY_OCTS * 8u;
#for w 4
      let pair$w = bitcast<vec2h>(words[$w]);
      keys[to + 2u * $wu] = pair$w.x;
      keys[to + 2u * $wu + 1u] = pair$w.y;
#endfor
    }
    workgroupBarrier();
    if (subgroup / 2u == turn) {
#for i QUERY_STEPS
      query$i = subgroupMatrixLoad<Left, row_major>(&keys, subgroup % 2u * 16u * KEY_STRIDE + $iu * 16u, KEY_STRIDE);
#endfor
    }
    workgroupBarrier();
  }

  // What this invocation fetches of each tile: every LANES-th oct of one token.
  let token = local / LANES;
  let lane = local % LANES;
#for i NOPE_FETCHES
  var nope$i = vec4u(0);
#endfor
#for i ROPE_FETCHES
  var rope$i = vec4u(0);
#endfor
#for i VALUE_FETCHES
  var value$i = vec4u(0);
#endfor
#for j OUTPUTS
  var sum$j: Sum;
#endfor
  // While the softmax is taken, two invocations share a row, sixteen tokens each.
  let row = inSubgroup / 2u;
  let firstToken = inSubgroup % 2u * 16u;
  let seen = seenFirst + i32(subgroup * 16u + row);
  var reference = LOWEST;
  var total = 0.0;

  // The loop runs once more than there are tiles: a turn brings the next tile on its way, then works on the one before.
  for (var start = 0u; start < end + TILE; start += TILE) {
    let here = start - TILE;
    if (start > 0u) {
      let mask = select(0u, ALL, here + token < end);
#for i NOPE_FETCHES
      if (lane + LANES * $iu < NOPE / 8u) {
        let words = nope$i & vec4u(mask);
        let at = token * KEY_STRIDE + min(lane + LANES * $iu, NOPE / 8u - 1u) * 8u;
#for w 4
        let pair$w = bitcast<vec2h>(words[$w]);
        keys[at + 2u * $wu] = pair$w.x;
        keys[at + 2u * $wu + 1u] = pair$w.y;
#endfor
      }
#endfor
#for i ROPE_FETCHES
      if (lane + LANES * $iu < ROPE / 8u) {
        let words = packOct(rope$i, LATENT / 8u) & vec4u(mask);
        let at = token * KEY_STRIDE + NOPE + min(lane + LANES * $iu, ROPE / 8u - 1u) * 8u;
#for w 4
        let pair$w = bitcast<vec2h>(words[$w]);
        keys[at + 2u * $wu] = pair$w.x;
        keys[at + 2u * $wu + 1u] = pair$w.y;
#endfor
      }
#endfor
#for i VALUE_FETCHES
      if (lane + LANES * $iu < VALUE_OCTS) {
        let words = value$i & vec4u(mask);
        let at = token * VALUE_STRIDE + min(lane + LANES * $iu, VALUE_OCTS - 1u) * 8u;
#for w 4
        let pair$w = bitcast<vec2h>(words[$w]);
        values[at + 2u * $wu] = pair$w.x;
        values[at + 2u * $wu + 1u] = pair$w.y;
#endfor
      }
#endfor
    }
    if (local == 0u) { grown[0] = 0u; }
    workgroupBarrier();
    if (start < end) {
      let t = min(start + token, end - 1u);
      let expanded = (base + t) * EXPANDED_OCTS;
#for i NOPE_FETCHES
      nope$i = scratch[expanded + min(lane + LANES * $iu, NOPE / 8u - 1u)];
#endfor
#for i VALUE_FETCHES
      value$i = scratch[expanded + NOPE / 8u + min(lane + LANES * $iu, VALUE_OCTS - 1u)];
#endfor
      let slot = u32(blockTable[t / PAGE_SIZE]) * PAGE_SIZE + t % PAGE_SIZE;
#for i ROPE_FETCHES
      rope$i = fetchOct(slot, LATENT / 8u + min(lane + LANES * $iu, ROPE / 8u - 1u));
#endfor
    }
    if (start == 0u) { continue; }

    var left = Sum();
    var right = Sum();
#for i QUERY_STEPS
    let leftKey$i = subgroupMatrixLoad<Right, col_major>(&keys, $iu * 16u, KEY_STRIDE);
    left = subgroupMatrixMultiplyAccumulate(query$i, leftKey$i, left);
    let rightKey$i = subgroupMatrixLoad<Right, col_major>(&keys, 16u * KEY_STRIDE + $iu * 16u, KEY_STRIDE);
    right = subgroupMatrixMultiplyAccumulate(query$i, rightKey$i, right);
#endfor
    subgroupMatrixStore<row_major>(&scores, subgroup * 512u, left, 16u);
    subgroupMatrixStore<row_major>(&scores, subgroup * 512u + 256u, right, 16u);
    workgroupBarrier();

    var most = LOWEST;
    let ownScores = subgroup * 512u + inSubgroup % 2u * 256u + row * 16u;
#for k 16
    let score$k = select(LOWEST, scores[ownScores + $ku] * scalars.base2Scale, i32(here + firstToken + $ku) < seen);
    most = max(most, score$k);
#endfor
    most = max(most, subgroupShuffleXor(most, 1u));
    let moves = most > reference + LAG;
    let next = select(reference, most, moves);
    let factor = exp2(max(reference - next, -120.0));
    reference = next;
    total *= factor;
    let ownProbabilities = (subgroup * 16u + row) * PROBABILITY_STRIDE + firstToken;
#for k 16
    let p$k = select(0.0, exp2(score$k - next), i32(here + firstToken + $ku) < seen);
    total += p$k;
#endfor
    let pair0 = bitcast<vec2h>(pack2x16float(vec2f(p0, p1)));
    let pair1 = bitcast<vec2h>(pack2x16float(vec2f(p2, p3)));
    let pair2 = bitcast<vec2h>(pack2x16float(vec2f(p4, p5)));
    let pair3 = bitcast<vec2h>(pack2x16float(vec2f(p6, p7)));
    let pair4 = bitcast<vec2h>(pack2x16float(vec2f(p8, p9)));
    let pair5 = bitcast<vec2h>(pack2x16float(vec2f(p10, p11)));
    let pair6 = bitcast<vec2h>(pack2x16float(vec2f(p12, p13)));
    let pair7 = bitcast<vec2h>(pack2x16float(vec2f(p14, p15)));
#for k 8
    probabilities[ownProbabilities + 2u * $ku] = pair$k.x;
    probabilities[ownProbabilities + 2u * $ku + 1u] = pair$k.y;
#endfor
    if (inSubgroup % 2u == 0u) { rescale[subgroup * 16u + row] = factor; }
    if (moves && here > 0u) { grown[0] = 1u; }
    if (workgroupUniformLoad(&grown[0]) != 0u) {
#for j OUTPUTS
      subgroupMatrixStore<row_major>(&scores, subgroup * 512u, sum$j, 16u);
      workgroupBarrier();
      for (var k = 0u; k < 8u; k++) {
        scores[subgroup * 512u + inSubgroup + k * 32u] *= rescale[subgroup * 16u + (inSubgroup + k * 32u) / 16u];
      }
      workgroupBarrier();
      sum$j = subgroupMatrixLoad<Sum, row_major>(&scores, subgroup * 512u, 16u);
      workgroupBarrier();
#endfor
    }
    let first = subgroupMatrixLoad<Left, row_major>(&probabilities, subgroup * 16u * PROBABILITY_STRIDE, PROBABILITY_STRIDE);
    let second = subgroupMatrixLoad<Left, row_major>(&probabilities, subgroup * 16u * PROBABILITY_STRIDE + 16u, PROBABILITY_STRIDE);
#for j OUTPUTS
    let upper$j = subgroupMatrixLoad<Right, row_major>(&values, $ju * 16u, VALUE_STRIDE);
    sum$j = subgroupMatrixMultiplyAccumulate(first, upper$j, sum$j);
    let lower$j = subgroupMatrixLoad<Right, row_major>(&values, 16u * VALUE_STRIDE + $ju * 16u, VALUE_STRIDE);
    sum$j = subgroupMatrixMultiplyAccumulate(second, lower$j, sum$j);
#endfor
    workgroupBarrier();
  }

  total += subgroupShuffleXor(total, 1u);
  if (inSubgroup % 2u == 0u) { rescale[subgroup * 16u + row] = select(0.0, 1.0 / max(total, 1e-30), total > 0.0); }
#for j OUTPUTS
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&scores, subgroup * 512u, sum$j, 16u);
  workgroupBarrier();
  for (var k = 0u; k < 2u; k++) {
    let at = inSubgroup + k * 32u;
    let ownRow = subgroup * 16u + at / 4u;
    let begin = subgroup * 512u + at * 4u;
    if (ownRow < rows) {
      out[((firstRow + ownRow) * heads + u32(scalars.firstHead) + head) * (VALUE / 4u) + $ju * 4u + at % 4u] =
        vec4f(scores[begin], scores[begin + 1u], scores[begin + 2u], scores[begin + 3u]) * rescale[ownRow];
    }
  }
#endfor
}
