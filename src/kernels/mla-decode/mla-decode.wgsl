// The split stage within WebGPU's default limits. Workgroups are (sequence, split, block of ROWS query rows). Partials: f32
// [sequences, splits, rows, LATENT] of unnormalised outputs; stats: [.., 2] of base-2 maximum and sum; a sum of 0 says that nothing
// was seen and no output written.
//
// A tile is 64 tokens. Scores: the entries pass through workgroup memory 32 channels at a time; 64 invocations hold the scores of
// ROWS × 64, each 4 rows of ROWS / 4 tokens, and GROUPS such sets share the channels. Outputs: an invocation holds 4 channels of
// 4 · ROW_VECTORS rows in registers.
//
// Constants: LATENT, ROPE, LATENT_DTYPE, PAGE_SIZE, ROWS (4, 8 or 16), ROW_VECTORS, WORKGROUP = LATENT / 4 · ROWS / 4 / ROW_VECTORS,
// MODE (0 full, 1 causal, 2 indices), COUNTED.
#include "../common/grid.wgsl"
#include "../common/latent.wgsl"
#include "./mla-decode.blocks.wgsl"

const TILE = 64u;
const GROUPS = WORKGROUP / 64u;
const ROW_GROUPS = ROWS / 4u;
/// Tokens of an invocation while scoring.
const TOKENS = ROWS / 4u;
const TOKEN_GROUPS = TILE / TOKENS;
/// Channels that pass through workgroup memory at a time, in vectors of four, and the share of one part of invocations.
const CHUNK = 8u;
const SHARE = CHUNK / GROUPS;
const KEY_STRIDE = TILE + 1u;
/// Key vectors and query vectors that an invocation brings into workgroup memory.
const KEY_LOADS = TILE * CHUNK / WORKGROUP;
const QUERY_LOADS = (ROWS * CHUNK + WORKGROUP - 1u) / WORKGROUP;
const SCORES = TILE * ROW_GROUPS;
const SCORES_EACH = (SCORES + WORKGROUP - 1u) / WORKGROUP;

var<workgroup> keys: array<vec4f, CHUNK * KEY_STRIDE>;
var<workgroup> queries: array<vec4f, CHUNK * ROWS>;
/// [token, row group]: scores, then probabilities.
var<workgroup> scores: array<vec4f, SCORES>;
var<workgroup> partMaxima: array<vec4f, 8u * ROW_GROUPS>;
var<workgroup> rescale: array<vec4f, ROW_GROUPS>;
var<workgroup> slots: array<u32, TILE>;

fn fetchKey(slot: u32, quad: u32) -> vec4f {
  if (slot == NONE) { return vec4f(0); }
  return latentFour(slot, quad);
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
  let perSplit = max(u32(scalars.leastSplit), ((u32(max(block.length, 0)) + splits - 1u) / splits + TILE - 1u) / TILE * TILE);
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
  // Roles while scoring: part, row group, tokens tokenGroup + TOKEN_GROUPS · j.
  let part = local / 64u;
  let member = local % 64u;
  let rowGroup = member % ROW_GROUPS;
  let tokenGroup = member / ROW_GROUPS;
  // Role while summing values: 4 channels of ROW_VECTORS · 4 rows.
  let channel = local % (LATENT / 4u);
  let valueRows = local / (LATENT / 4u) * ROW_VECTORS;
  let queryBase = (block.sequence * u32(scalars.sQ) * u32(scalars.heads) + block.first) * ENTRY_QUADS;

  // A scalar, not a constant: loops with barriers in them that are unrolled take software adapters tens of seconds to compile.
  let chunks = u32(scalars.chunks);

  var out: array<vec4f, ROW_VECTORS * 4u>;
  for (var r = 0u; r < ROW_VECTORS * 4u; r++) { out[r] = vec4f(0); }
  var highest = vec4f(LOWEST);
  var sums = vec4f(0);

  for (var start = begin; start < to; start += TILE) {
    let count = min(TILE, to - start);
    if (local < TILE) {
      var slot = NONE;
      if (local < count) { slot = slotOf(block.tableRow, start + local); }
      slots[local] = slot;
    }
    workgroupBarrier();

    // Scores.
    var mySlots: array<u32, KEY_LOADS>;
    for (var i = 0u; i < KEY_LOADS; i++) { mySlots[i] = slots[(local + i * WORKGROUP) / CHUNK]; }
    var score: array<vec4f, TOKENS>;
    for (var j = 0u; j < TOKENS; j++) { score[j] = vec4f(0); }
    var nextKeys: array<vec4f, KEY_LOADS>;
    for (var i = 0u; i < KEY_LOADS; i++) { nextKeys[i] = fetchKey(mySlots[i], local % CHUNK); }
    for (var chunk = 0u; chunk < chunks; chunk++) {
      for (var i = 0u; i < KEY_LOADS; i++) {
        keys[local % CHUNK * KEY_STRIDE + (local + i * WORKGROUP) / CHUNK] = nextKeys[i];
      }
      for (var i = 0u; i < QUERY_LOADS; i++) {
        let at = local + i * WORKGROUP;
        let row = at / CHUNK;
        if (row < ROWS) {
          var value = vec4f(0);
          if (row < block.rows) {
            value = q[queryBase + row * ENTRY_QUADS + chunk * CHUNK + at % CHUNK] * scalars.softmaxScale;
          }
          queries[at % CHUNK * ROWS + row % 4u * ROW_GROUPS + row / 4u] = value;
        }
      }
      workgroupBarrier();
      if (chunk + 1u < chunks) {
        for (var i = 0u; i < KEY_LOADS; i++) {
          nextKeys[i] = fetchKey(mySlots[i], (chunk + 1u) * CHUNK + local % CHUNK);
        }
      }
      for (var s = 0u; s < SHARE; s++) {
        let quad = part * SHARE + s;
        let q0 = queries[quad * ROWS + rowGroup];
        let q1 = queries[quad * ROWS + ROW_GROUPS + rowGroup];
        let q2 = queries[quad * ROWS + 2u * ROW_GROUPS + rowGroup];
        let q3 = queries[quad * ROWS + 3u * ROW_GROUPS + rowGroup];
        for (var j = 0u; j < TOKENS; j++) {
          let key = keys[quad * KEY_STRIDE + tokenGroup + TOKEN_GROUPS * j];
          score[j] += vec4f(dot(q0, key), dot(q1, key), dot(q2, key), dot(q3, key));
        }
      }
      workgroupBarrier();
    }

    // The sets' shares are added up in the keys' memory; part 0 keeps the sum.
    for (var half = GROUPS / 2u; half > 0u; half /= 2u) {
      if (part >= half && part < 2u * half) {
        for (var j = 0u; j < TOKENS; j++) { keys[((part - half) * TOKENS + j) * 64u + member] = score[j]; }
      }
      workgroupBarrier();
      if (part < half) {
        for (var j = 0u; j < TOKENS; j++) { score[j] += keys[(part * TOKENS + j) * 64u + member]; }
      }
      workgroupBarrier();
    }
    if (part == 0u) {
      for (var j = 0u; j < TOKENS; j++) {
        let t = tokenGroup + TOKEN_GROUPS * j;
        scores[t * ROW_GROUPS + rowGroup] = select(vec4f(LOWEST), score[j], isVisible(block, start + t, count > t && slots[t] != NONE, rowGroup));
      }
    }
    workgroupBarrier();

    // Maxima: 8 parts of a tile, then all.
    if (local < 8u * ROW_GROUPS) {
      var most = vec4f(LOWEST);
      for (var t = local / ROW_GROUPS; t < TILE; t += 8u) { most = max(most, scores[t * ROW_GROUPS + local % ROW_GROUPS]); }
      partMaxima[local] = most;
    }
    workgroupBarrier();
    let ownRows = local % ROW_GROUPS;
    var most = highest;
    for (var part = 0u; part < 8u; part++) { most = max(most, partMaxima[part * ROW_GROUPS + ownRows]); }
    let factor = exp2(highest - most);
    highest = most;
    sums *= factor;
    if (local < ROW_GROUPS) { rescale[local] = factor; }
    for (var i = 0u; i < SCORES_EACH; i++) {
      let at = local + i * WORKGROUP;
      if (at < SCORES) {
        let t = at / ROW_GROUPS;
        let visible = isVisible(block, start + t, count > t && slots[t] != NONE, ownRows);
        let p = select(vec4f(0), exp2(scores[at] - most), visible);
        scores[at] = p;
        sums += p;
      }
    }
    workgroupBarrier();

    // Values.
    for (var v = 0u; v < ROW_VECTORS; v++) {
      let by = rescale[valueRows + v];
      out[v * 4u] *= by.x;
      out[v * 4u + 1u] *= by.y;
      out[v * 4u + 2u] *= by.z;
      out[v * 4u + 3u] *= by.w;
    }
    for (var t = 0u; t < count; t++) {
      let slot = slots[t];
      if (slot == NONE) { continue; }
      let value = latentFour(slot, channel);
      for (var v = 0u; v < ROW_VECTORS; v++) {
        let p = scores[t * ROW_GROUPS + valueRows + v];
        out[v * 4u] += p.x * value;
        out[v * 4u + 1u] += p.y * value;
        out[v * 4u + 2u] += p.z * value;
        out[v * 4u + 3u] += p.w * value;
      }
    }
    workgroupBarrier();
  }

  for (var r = 0u; r < ROW_VECTORS * 4u; r++) {
    let row = valueRows * 4u + r;
    if (row < block.rows) { partials[(firstResult + row) * (LATENT / 4u) + channel] = out[r]; }
  }
  // The invocations' sums of a row are added up in the scores' memory.
  if (local < SCORES) { scores[local] = sums; }
  workgroupBarrier();
  if (local < ROW_GROUPS) {
    var sum = vec4f(0);
    for (var at = local; at < min(SCORES, WORKGROUP); at += ROW_GROUPS) { sum += scores[at]; }
    for (var r = 0u; r < 4u; r++) {
      if (local * 4u + r < block.rows) {
        stats[firstResult + local * 4u + r] = vec2f(highest[r], sum[r]);
      }
    }
  }
}

/// For each row of a row group, whether it sees the token at position `t`.
fn isVisible(block: Block, t: u32, present: bool, rowGroup: u32) -> vec4<bool> {
#if MODE == 1
  let row = vec4u(0, 1, 2, 3) + block.first + rowGroup * 4u;
  let seen = vec4i(row / u32(scalars.heads)) + block.length - scalars.sQ + 1;
  return vec4<bool>(present) & (vec4i(i32(t)) < seen);
#else
  return vec4<bool>(present);
#endif
}
