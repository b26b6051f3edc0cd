// The split stage on subgroup matrices (f16 × f16 → f32, 16 × 16 × 16; subgroups of 32): the same blocks, splits and partials as
// mla-decode.wgsl. A workgroup has 16 rows and SUBGROUPS subgroups. Entries pass through workgroup memory as f16, TILE tokens at a time, the
// next tile's on their way in registers meanwhile. The subgroups share the channels of the scores (and the tokens, 16 each) and then the
// channels of the outputs, whose sums stay in registers. Matrices are variables, not arrays, which would live in memory: `#for` repeats
// lines with the number in place of $i.
//
// Entries in 16 or 8 bits are exact in f16 (within its range); queries and probabilities are TERMS f16 each: with two,
// results are those of float32. The first of two is cut off, not rounded: compilers take a value rounded to f16 and back for the value.
//
// Sums are relative to a maximum that lags: it moves only where a row's scores exceed it by more than 2^8, so that the outputs,
// which have to pass through workgroup memory for it, are rarely rescaled.
//
// Workgroup memory is indexed by expressions of the invocation's index whose range the compiler sees: otherwise it limits each index,
// and neighbouring values are stored one by one.
//
// Constants: LATENT, ROPE, LATENT_DTYPE, PAGE_SIZE, ROWS = 16, MODE, COUNTED, TERMS (1 or 2), TILE (16 or 32), SUBGROUPS (8 or 16), OUTPUTS = LATENT / 16 / SUBGROUPS,
// TILE ≥ 16 · TERMS; QUERY_LOADS = ⌈(LATENT + ROPE) / 8 / (WORKGROUP / 16)⌉; STEPS_EACH = ⌈(LATENT + ROPE) / 16 / KEY_GROUPS⌉, UNEVEN (whether the division leaves a rest), FETCHES = LATENT / 8 / LANES.
#include "../common/grid.wgsl"
#include "../common/latent-octs.wgsl"
#include "./mla-decode.blocks.wgsl"

const WORKGROUP = 32u * SUBGROUPS;
const TOKEN_GROUPS = TILE / 16u;
/// Subgroups that share the channels of the scores of 16 tokens.
const KEY_GROUPS = SUBGROUPS / TOKEN_GROUPS;
/// Invocations that fetch a token's entry.
const LANES = WORKGROUP / TILE;
/// Invocations that bring a row of queries.
const QUERY_LANES = WORKGROUP / 16u;
/// Values of a row of keys, with 16 bytes between rows so that they begin in different banks.
const LATENT_OCTS = LATENT / 8u;
const ROPE_OCTS = ROPE / 8u;
const STRIDE = LATENT + ROPE + 8u;
const STEPS = (LATENT + ROPE) / 16u;
const PROBABILITY_STRIDE = TILE + 8u;
const LAG = 8.0;
/// The bits of a float32 that f16 has.
const CUT = 0xffffe000u;
const ALL = 0xffffffffu;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// NVIDIA's driver stores matrices at multiples of 16 bytes only, so every variable has such a size.
/// Entries of the tile; before the first one, the queries.
var<workgroup> keys: array<f16, TILE * STRIDE>;
/// Each subgroup's share of the scores; also where outputs are rescaled and leave.
var<workgroup> shares: array<f32, SUBGROUPS * 256u>;
/// [TERMS, 16, TILE].
var<workgroup> probabilities: array<f16, TERMS * 16u * PROBABILITY_STRIDE>;
var<workgroup> rescale: array<f32, 16>;
/// Whether each token of the tile is one; at GROWN, whether a row's maximum moved.
var<workgroup> slots: array<u32, TILE + 4u>;
const GROWN = TILE;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let block = findBlock(item);
#if COUNTED
  if (i32(block.sequence) >= batchCount[0]) { return; }
#endif
  let splits = u32(scalars.splits);
  let share = (u32(max(block.length, 0)) + splits - 1u) / splits;
  let perSplit = max(u32(scalars.leastSplit), (share + TILE - 1u) / TILE * TILE);
  let totalRows = u32(scalars.sQ) * u32(scalars.heads);
  // Queries on their way while lengths, table and entries follow one from the other. Row and octs of an invocation:
  let queryRow = local / QUERY_LANES;
  let queryBase = ((block.sequence * totalRows + block.first) + min(queryRow, block.rows - 1u)) * (ENTRY_OCTS * 2u);
#for i QUERY_LOADS
  let oct$i = min(local % QUERY_LANES + QUERY_LANES * $iu, ENTRY_OCTS - 1u);
  let low$i = q[queryBase + oct$i * 2u];
  let high$i = q[queryBase + oct$i * 2u + 1u];
#endfor
  let firstResult = (block.sequence * splits + block.split) * totalRows + block.first;
  let begin = block.split * perSplit;
  let end = min(i32(begin + perSplit), visibleEnd(block.length, block.first + block.rows - 1u));
  if (i32(begin) >= end) {
    if (local < block.rows) { stats[firstResult + local] = vec2f(LOWEST, 0.0); }
    return;
  }
  let to = u32(end);
  let subgroup = local / 32u;

  // What this invocation fetches of each tile: every LANES-th oct of one token.
  let token = local / LANES;
  let lane = local % LANES;
  var slot = slotBefore(block.tableRow, begin + token, to);
  let firstEntry = select(slot, 0u, slot == NONE);
#for i FETCHES
  var raw$i = fetchOct(firstEntry, lane + LANES * $iu);
#endfor
  var rawRope = fetchOct(firstEntry, LATENT_OCTS + lane % ROPE_OCTS);
  var nextSlot = slotBefore(block.tableRow, begin + TILE + token, to);

  let ownKeys = subgroup % KEY_GROUPS;
  let ownTokens = subgroup / KEY_GROUPS;
  // Both terms of the queries pass through the tile's memory, 16 rows each.
#for i QUERY_LOADS
#for term TERMS
  {
    let mask = select(0u, ALL, queryRow < block.rows);
    let words = vec4u(queryPart(low$i, $term), queryPart(high$i, $term)) & vec4u(mask);
    let at = ($termu * 16u + queryRow) * STRIDE + oct$i * 8u;
#for w 4
    let pair$w = bitcast<vec2h>(words[$w]);
    keys[at + 2u * $wu] = pair$w.x;
    keys[at + 2u * $wu + 1u] = pair$w.y;
#endfor
  }
#endfor
#endfor
  workgroupBarrier();
#for i STEPS_EACH
  var query$i: Left;
#if TERMS == 2
  var rest$i: Left;
#endif
#if UNEVEN
  if (ownKeys + KEY_GROUPS * $iu < STEPS)
#endif
  {
    query$i = subgroupMatrixLoad<Left, row_major>(&keys, (ownKeys + KEY_GROUPS * $iu) * 16u, STRIDE);
#if TERMS == 2
    rest$i = subgroupMatrixLoad<Left, row_major>(&keys, 16u * STRIDE + (ownKeys + KEY_GROUPS * $iu) * 16u, STRIDE);
#endif
  }
#endfor
  workgroupBarrier();

#for j OUTPUTS
  var sum$j: Sum;
#endfor
  // While the softmax is taken, sixteen invocations share a row, and each has a token of every 16; those past the first 256 do the same again.
  let row = local / 16u % 16u;
  let column = local % 16u;
  let seen = visibleEnd(block.length, block.first + row);
  var reference = LOWEST;
  var total = 0.0;

  for (var start = begin; start < to; start += TILE) {
    let mask = select(ALL, 0u, slot == NONE);
#for i FETCHES
    {
      let words = packOct(raw$i, 0u) & vec4u(mask);
      let at = token * STRIDE + (lane + LANES * $iu) * 8u;
#for w 4
      let pair$w = bitcast<vec2h>(words[$w]);
      keys[at + 2u * $wu] = pair$w.x;
      keys[at + 2u * $wu + 1u] = pair$w.y;
#endfor
    }
#endfor
    if (lane < ROPE_OCTS) {
      let words = packOct(rawRope, LATENT_OCTS) & vec4u(mask);
      let at = token * STRIDE + LATENT + lane % ROPE_OCTS * 8u;
#for w 4
      let pair$w = bitcast<vec2h>(words[$w]);
      keys[at + 2u * $wu] = pair$w.x;
      keys[at + 2u * $wu + 1u] = pair$w.y;
#endfor
    }
#if MODE == 2
    if (lane == 0u) { slots[token] = slot; }
#endif
    if (local == 0u) { slots[GROWN] = 0u; }
    workgroupBarrier();

    // The next tile on its way.
    slot = nextSlot;
    if (start + TILE < to) {
      let entry = select(slot, 0u, slot == NONE);
#for i FETCHES
      raw$i = fetchOct(entry, lane + LANES * $iu);
#endfor
      rawRope = fetchOct(entry, LATENT_OCTS + lane % ROPE_OCTS);
      nextSlot = slotBefore(block.tableRow, start + 2u * TILE + token, to);
    }

    var score = Sum();
#for i STEPS_EACH
#if UNEVEN
    if (ownKeys + KEY_GROUPS * $iu < STEPS)
#endif
    {
      let key = subgroupMatrixLoad<Right, col_major>(&keys, ownTokens * 16u * STRIDE + (ownKeys + KEY_GROUPS * $iu) * 16u, STRIDE);
#if TERMS == 2
      score = subgroupMatrixMultiplyAccumulate(rest$i, key, score);
#endif
      score = subgroupMatrixMultiplyAccumulate(query$i, key, score);
    }
#endfor
    subgroupMatrixStore<row_major>(&shares, subgroup * 256u, score, 16u);
    workgroupBarrier();

    var most = LOWEST;
#for h TILE / 16
    var score$h = 0.0;
    for (var part = 0u; part < KEY_GROUPS; part++) { score$h += shares[($hu * KEY_GROUPS + part) * 256u + local % 256u]; }
    let t$h = start + column + $hu * 16u;
#if MODE == 2
    let visible$h = t$h < to && i32(t$h) < seen && slots[column + $hu * 16u] != NONE;
#else
    let visible$h = t$h < to && i32(t$h) < seen;
#endif
    score$h = select(LOWEST, score$h * scalars.softmaxScale, visible$h);
    most = max(most, score$h);
#endfor
    most = max(most, subgroupShuffleXor(most, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    most = max(most, subgroupShuffleXor(most, 4u));
    most = max(most, subgroupShuffleXor(most, 8u));
    let moves = most > reference + LAG;
    let next = select(reference, most, moves);
    let factor = exp2(max(reference - next, -120.0));
    reference = next;
    total *= factor;
#for h TILE / 16
    let exact$h = select(0.0, exp2(score$h - next), visible$h);
#if TERMS == 2
    let cut$h = bitcast<f32>(bitcast<u32>(exact$h) & CUT);
    probabilities[row * PROBABILITY_STRIDE + column + $hu * 16u] = f16(cut$h);
    probabilities[(16u + row) * PROBABILITY_STRIDE + column + $hu * 16u] = f16(exact$h - cut$h);
#else
    probabilities[row * PROBABILITY_STRIDE + column + $hu * 16u] = f16(exact$h);
#endif
    total += exact$h;
#endfor
    if (column == 0u) { rescale[row] = factor; }
    if (moves && start > begin) { slots[GROWN] = 1u; }
    if (workgroupUniformLoad(&slots[GROWN]) != 0u) {
#for j OUTPUTS
      subgroupMatrixStore<row_major>(&shares, subgroup * 256u, sum$j, 16u);
      workgroupBarrier();
      for (var k = 0u; k < 8u; k++) {
        shares[subgroup * 256u + local % 32u + k * 32u] *= rescale[(local % 32u + k * 32u) / 16u];
      }
      workgroupBarrier();
      sum$j = subgroupMatrixLoad<Sum, row_major>(&shares, subgroup * 256u, 16u);
      workgroupBarrier();
#endfor
    }

#for h TILE / 16
    let main$h = subgroupMatrixLoad<Left, row_major>(&probabilities, $hu * 16u, PROBABILITY_STRIDE);
#if TERMS == 2
    let small$h = subgroupMatrixLoad<Left, row_major>(&probabilities, 16u * PROBABILITY_STRIDE + $hu * 16u, PROBABILITY_STRIDE);
#endif
#for j OUTPUTS
    let values$h_$j = subgroupMatrixLoad<Right, row_major>(&keys, $hu * 16u * STRIDE + (subgroup * OUTPUTS + $ju) * 16u, STRIDE);
#if TERMS == 2
    sum$j = subgroupMatrixMultiplyAccumulate(small$h, values$h_$j, sum$j);
#endif
    sum$j = subgroupMatrixMultiplyAccumulate(main$h, values$h_$j, sum$j);
#endfor
#endfor
    workgroupBarrier();
  }

  total += subgroupShuffleXor(total, 1u);
  total += subgroupShuffleXor(total, 2u);
  total += subgroupShuffleXor(total, 4u);
  total += subgroupShuffleXor(total, 8u);
  if (column == 0u && row < block.rows) { stats[firstResult + row] = vec2f(reference, total); }
#for j OUTPUTS
  subgroupMatrixStore<row_major>(&shares, subgroup * 256u, sum$j, 16u);
  workgroupBarrier();
  for (var k = 0u; k < 2u; k++) {
    let at = local % 32u + k * 32u;
    if (at / 4u < block.rows) {
      let first = subgroup * 256u + at * 4u;
      partials[(firstResult + at / 4u) * (LATENT / 4u) + (subgroup * OUTPUTS + $ju) * 4u + at % 4u] =
        vec4f(shares[first], shares[first + 1u], shares[first + 2u], shares[first + 3u]);
    }
  }
  workgroupBarrier();
#endfor
}

/// Four values of a query as the first or second term of its f16 form.
fn queryPart(value: vec4f, term: u32) -> vec2u {
  let exact = clamp(value, vec4f(-65504.0), vec4f(65504.0));
#if TERMS == 2
  let cut = bitcast<vec4f>(bitcast<vec4u>(exact) & vec4u(CUT));
  return packFour(select(cut, exact - cut, term == 1u));
#else
  return packFour(exact);
#endif
}

/// Slot of token `t` of those before `to`, or NONE.
fn slotBefore(tableRow: u32, t: u32, to: u32) -> u32 {
  let found = slotOf(tableRow, min(t, to - 1u));
  return select(found, NONE, t >= to);
}
