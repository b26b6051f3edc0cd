// The split stage on subgroup matrices (f16 × f16 → f32, 16 × 16 × 16; subgroups of 32): the same blocks, splits and partials as
// mla-decode.wgsl. A workgroup has 16 rows and four subgroups. Entries pass through workgroup memory as f16, 32 tokens at a time. The
// subgroups share the channels of the scores and then the channels of the outputs, whose sums stay in registers.
//
// Entries in 16 or 8 bits are exact in f16 (past its range they are clamped); queries and probabilities are two f16 each, so that
// results are those of float32.
//
// Sums are relative to a maximum that lags: it moves only where a row's scores exceed it by more than 2^8, so that the outputs,
// which have to pass through workgroup memory for it, are rarely rescaled.
//
// Constants: LATENT, ROPE, LATENT_DTYPE, PAGE_SIZE, ROWS = 16, MODE, COUNTED.
#include "../common/grid.wgsl"
#include "../common/latent.wgsl"
#include "./mla-decode.blocks.wgsl"

const WORKGROUP = 128u;
const SUBGROUPS = 4u;
const TILE = 32u;
const SPLIT_STEP = 64u;
/// Values of a row of keys, with 16 bytes between rows so that they begin in different banks.
const STRIDE = LATENT + ROPE + 8u;
const STEPS = (LATENT + ROPE) / 16u;
const STEPS_EACH = (STEPS + SUBGROUPS - 1u) / SUBGROUPS;
const OUTPUTS_EACH = LATENT / 16u / SUBGROUPS;
const PROBABILITY_STRIDE = TILE + 8u;
const LAG = 8.0;
const MOST_F16 = 65504.0;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

/// Entries of the tile; before the first one, the queries.
var<workgroup> keys: array<f16, TILE * STRIDE>;
/// Each subgroup's share of the scores, [16, TILE]; also where outputs are rescaled.
var<workgroup> shares: array<f32, SUBGROUPS * 16u * TILE>;
/// [2, 16, TILE]: what f16 holds of them, and the rest.
var<workgroup> probabilities: array<f16, 32u * PROBABILITY_STRIDE>;
var<workgroup> rescale: array<f32, 16>;
/// Slots of the tile's tokens; at GROWN, whether a row's maximum moved. NVIDIA's driver stores matrices at multiples of 16 bytes only,
/// so every variable has such a size.
var<workgroup> slots: array<u32, TILE + 4u>;
const GROWN = TILE;

fn toF16(value: vec4f) -> vec4h {
  return vec4h(clamp(value, vec4f(-MOST_F16), vec4f(MOST_F16)));
}

fn putKeys(at: u32, value: vec4f) {
  let narrow = toF16(value);
  keys[at] = narrow.x;
  keys[at + 1u] = narrow.y;
  keys[at + 2u] = narrow.z;
  keys[at + 3u] = narrow.w;
}

fn putProbabilities(at: u32, p: vec4h) {
  probabilities[at] = p.x;
  probabilities[at + 1u] = p.y;
  probabilities[at + 2u] = p.z;
  probabilities[at + 3u] = p.w;
}

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
  let perSplit = max(u32(scalars.leastSplit), (share + SPLIT_STEP - 1u) / SPLIT_STEP * SPLIT_STEP);
  let totalRows = u32(scalars.sQ) * u32(scalars.heads);
  let firstResult = (block.sequence * splits + block.split) * totalRows + block.first;
  let begin = block.split * perSplit;
  let end = min(i32(begin + perSplit), visibleEnd(block.length, block.first + block.rows - 1u));
  if (i32(begin) >= end) {
    if (local < block.rows) { stats[firstResult + local] = vec2f(LOWEST, 0.0); }
    return;
  }
  attend(block, begin, u32(end), firstResult, local);
}

fn attend(block: Block, begin: u32, to: u32, firstResult: u32, local: u32) {
  let subgroup = local / 32u;
  let queryBase = (block.sequence * u32(scalars.sQ) * u32(scalars.heads) + block.first) * ENTRY_QUADS;
  var queries: array<Left, STEPS_EACH>;
  var remainders: array<Left, STEPS_EACH>;
  for (var turn = 0u; turn < 2u; turn++) {
    for (var at = local; at < 16u * ENTRY_QUADS; at += WORKGROUP) {
      let row = at / ENTRY_QUADS;
      let quad = at % ENTRY_QUADS;
      var value = vec4f(0);
      if (row < block.rows) { value = q[queryBase + row * ENTRY_QUADS + quad] * scalars.softmaxScale; }
      if (turn == 1u) { value -= vec4f(toF16(value)); }
      putKeys(row * STRIDE + quad * 4u, value);
    }
    workgroupBarrier();
    for (var i = 0u; i < STEPS_EACH; i++) {
      let step = subgroup + i * SUBGROUPS;
      if (step < STEPS) {
        let loaded = subgroupMatrixLoad<Left>(&keys, step * 16u, false, STRIDE);
        if (turn == 0u) { queries[i] = loaded; } else { remainders[i] = loaded; }
      }
    }
    workgroupBarrier();
  }

  var sums: array<Sum, OUTPUTS_EACH>;
  // While the softmax is taken, eight invocations share a row, four tokens each.
  let row = local / 8u;
  let firstToken = local % 8u * 4u;
  var reference = LOWEST;
  var total = 0.0;

  for (var start = begin; start < to; start += TILE) {
    let count = min(TILE, to - start);
    if (local < TILE) {
      var slot = NONE;
      if (local < count) { slot = slotOf(block.tableRow, start + local); }
      slots[local] = slot;
    }
    if (local == 0u) { slots[GROWN] = 0u; }
    workgroupBarrier();
    for (var at = local; at < TILE * ENTRY_QUADS; at += WORKGROUP) {
      let token = at / ENTRY_QUADS;
      let quad = at % ENTRY_QUADS;
      let slot = slots[token];
      var value = vec4f(0);
      if (slot != NONE) { value = latentFour(slot, quad); }
      putKeys(token * STRIDE + quad * 4u, value);
    }
    workgroupBarrier();

    var low: Sum;
    var high: Sum;
    for (var i = 0u; i < STEPS_EACH; i++) {
      let step = subgroup + i * SUBGROUPS;
      if (step < STEPS) {
        let left = subgroupMatrixLoad<Right>(&keys, step * 16u, true, STRIDE);
        let right = subgroupMatrixLoad<Right>(&keys, 16u * STRIDE + step * 16u, true, STRIDE);
        low = subgroupMatrixMultiplyAccumulate(remainders[i], left, low);
        low = subgroupMatrixMultiplyAccumulate(queries[i], left, low);
        high = subgroupMatrixMultiplyAccumulate(remainders[i], right, high);
        high = subgroupMatrixMultiplyAccumulate(queries[i], right, high);
      }
    }
    subgroupMatrixStore(&shares, subgroup * 16u * TILE, low, false, TILE);
    subgroupMatrixStore(&shares, subgroup * 16u * TILE + 16u, high, false, TILE);
    workgroupBarrier();

    let seen = visibleEnd(block.length, block.first + row);
    var score = vec4f(0);
    for (var k = 0u; k < 4u; k++) {
      let at = row * TILE + firstToken + k;
      score[k] = shares[at] + shares[16u * TILE + at] + shares[32u * TILE + at] + shares[48u * TILE + at];
    }
    var visible: vec4<bool>;
    for (var k = 0u; k < 4u; k++) {
      let t = firstToken + k;
      visible[k] = t < count && slots[t] != NONE && i32(start + t) < seen;
    }
    score = select(vec4f(LOWEST), score, visible);
    var most = max(max(score.x, score.y), max(score.z, score.w));
    most = max(most, subgroupShuffleXor(most, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    most = max(most, subgroupShuffleXor(most, 4u));
    let moves = most > reference + LAG;
    let next = select(reference, most, moves);
    let factor = exp2(max(reference - next, -120.0));
    reference = next;
    total *= factor;
    let exact = select(vec4f(0), exp2(score - next), visible);
    total += exact.x + exact.y + exact.z + exact.w;
    putProbabilities(row * PROBABILITY_STRIDE + firstToken, vec4h(exact));
    putProbabilities((16u + row) * PROBABILITY_STRIDE + firstToken, vec4h(exact - vec4f(vec4h(exact))));
    if (local % 8u == 0u) { rescale[row] = factor; }
    if (moves && start > begin) { slots[GROWN] = 1u; }
    if (workgroupUniformLoad(&slots[GROWN]) != 0u) {
      for (var j = 0u; j < OUTPUTS_EACH; j++) {
        subgroupMatrixStore(&shares, subgroup * 512u, sums[j], false, 16u);
        workgroupBarrier();
        for (var k = local % 32u; k < 256u; k += 32u) { shares[subgroup * 512u + k] *= rescale[k / 16u]; }
        workgroupBarrier();
        sums[j] = subgroupMatrixLoad<Sum>(&shares, subgroup * 512u, false, 16u);
      }
    }
    workgroupBarrier();

    for (var half = 0u; half < TILE; half += 16u) {
      let main = subgroupMatrixLoad<Left>(&probabilities, half, false, PROBABILITY_STRIDE);
      let rest = subgroupMatrixLoad<Left>(&probabilities, 16u * PROBABILITY_STRIDE + half, false, PROBABILITY_STRIDE);
      for (var j = 0u; j < OUTPUTS_EACH; j++) {
        let channel = (subgroup * OUTPUTS_EACH + j) * 16u;
        let values = subgroupMatrixLoad<Right>(&keys, half * STRIDE + channel, false, STRIDE);
        sums[j] = subgroupMatrixMultiplyAccumulate(rest, values, sums[j]);
        sums[j] = subgroupMatrixMultiplyAccumulate(main, values, sums[j]);
      }
    }
    workgroupBarrier();
  }

  total += subgroupShuffleXor(total, 1u);
  total += subgroupShuffleXor(total, 2u);
  total += subgroupShuffleXor(total, 4u);
  if (local % 8u == 0u && row < block.rows) { stats[firstResult + row] = vec2f(reference, total); }
  for (var j = 0u; j < OUTPUTS_EACH; j++) {
    subgroupMatrixStore(&shares, subgroup * 512u, sums[j], false, 16u);
    workgroupBarrier();
    let quad = (subgroup * OUTPUTS_EACH + j) * 4u;
    for (var k = local % 32u; k < 64u; k += 32u) {
      let at = subgroup * 512u + k * 4u;
      if (k / 4u < block.rows) {
        partials[(firstResult + k / 4u) * (LATENT / 4u) + quad + k % 4u] = vec4f(shares[at], shares[at + 1u], shares[at + 2u], shares[at + 3u]);
      }
    }
    workgroupBarrier();
  }
}
