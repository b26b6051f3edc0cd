// The split stage within WebGPU's default limits. Workgroups are (sequence, split, block of ROWS query rows). Partials: f32
// [sequences, splits, rows, LATENT] of unnormalised outputs; stats: [.., 2] of base-2 maximum and sum; a sum of 0 says that nothing
// was seen and no output written.
//
// A tile is 64 tokens. Scores: the entries pass through workgroup memory 32 channels at a time, those of the next DEPTH turns on their way,
// into the next tile; 64 invocations hold the scores of ROWS × 64, each 4 rows of ROWS / 4 tokens, and GROUPS such sets share the
// channels. Outputs: an invocation holds 4 channels of 4 · ROW_VECTORS rows in registers, and fetches the values of the next four tokens
// while it sums four. `#for` lays loops out (wgsl.ts). Workgroup memory is indexed by expressions whose range the compiler sees: otherwise
// it limits each index.
//
// HALF keeps the channels that pass through workgroup memory in f16: half the memory and half the traffic there. SUBGROUPS takes
// maxima by subgroup operations; subgroups have 8 invocations or more.
//
// Constants: LATENT, ROPE, LATENT_DTYPE, PAGE_SIZE, ROWS (4, 8 or 16), ROW_VECTORS, WORKGROUP = LATENT / 4 · ROWS / 4 / ROW_VECTORS,
// KEY_LOADS = 512 / WORKGROUP, DEPTH, LAST = DEPTH - 1, TOKENS = ROWS / 4, MODE (0 full, 1 causal, 2 indices), COUNTED, HALF, SUBGROUPS.
#include "../common/grid.wgsl"
#include "../common/latent.wgsl"
#include "./mla-decode.blocks.wgsl"

const TILE = 64u;
const GROUPS = WORKGROUP / 64u;
const ROW_GROUPS = ROWS / 4u;
const TOKEN_GROUPS = TILE / TOKENS;
/// Channels that pass through workgroup memory at a time, in vectors of four, and the share of one part of invocations.
const CHUNK = 8u;
const SHARE = CHUNK / GROUPS;
const KEY_STRIDE = TILE + 1u;
const KEY_STEP = WORKGROUP / CHUNK;
/// Query vectors of a turn, which as many invocations bring.
const QUERIES = ROWS * CHUNK;
const SCORES = TILE * ROW_GROUPS;
const SCORES_EACH = (SCORES + WORKGROUP - 1u) / WORKGROUP;

#if HALF
alias Key = vec4h;
#else
alias Key = vec4f;
#endif

/// [channels / 4, token].
var<workgroup> keys: array<Key, CHUNK * KEY_STRIDE>;
/// [channel, row group].
var<workgroup> queries: array<vec4f, CHUNK * ROWS>;
/// [token, row group]: scores, then probabilities.
var<workgroup> scores: array<vec4f, SCORES>;
#if !SUBGROUPS
var<workgroup> partMaxima: array<vec4f, 8u * ROW_GROUPS>;
#endif
var<workgroup> rescale: array<vec4f, ROW_GROUPS>;
var<workgroup> slots: array<u32, TILE>;

#if SUBGROUPS
@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) local: u32,
  @builtin(subgroup_size) subgroupSize: u32,
) {
#else
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
#endif
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
  let to = u32(end);

  // Roles while scoring: part, row group, tokens tokenGroup + TOKEN_GROUPS · j.
  let part = local / 64u;
  let member = local % 64u;
  let rowGroup = member % ROW_GROUPS;
  let tokenGroup = member / ROW_GROUPS;
  // Role while summing values: 4 channels of ROW_VECTORS · 4 rows.
  let channel = local % (LATENT / 4u);
  let valueRows = local / (LATENT / 4u) * ROW_VECTORS;
  let queryBase = (block.sequence * totalRows + block.first) * ENTRY_QUADS;
  // Role while bringing in: of each turn's channels quad `keyQuad` of tokens keyToken, keyToken + KEY_STEP …
  let keyQuad = local % CHUNK;
  let keyToken = local / CHUNK;

  let queryAt = queryBase + min(local / CHUNK, block.rows - 1u) * ENTRY_QUADS + local % CHUNK;
  var nextQuery = q[queryAt] * scalars.softmaxScale;

  // Of scalars, not constants: loops with barriers in them that are unrolled take software adapters tens of seconds to compile.
  let chunks = u32(scalars.chunks);
  let groups = min(GROUPS, chunks);

#for r ROW_VECTORS
  var out$r_0 = vec4f(0);
  var out$r_1 = vec4f(0);
  var out$r_2 = vec4f(0);
  var out$r_3 = vec4f(0);
#endfor
  var highest = vec4f(LOWEST);
  var sums = vec4f(0);

#for i KEY_LOADS
  var keySlot$i = slotBefore(block.tableRow, begin + keyToken + KEY_STEP * $iu, to);
#for d DEPTH
  var next$d_$i = fetchFour(select(keySlot$i, 0u, keySlot$i == NONE), $du * CHUNK + keyQuad);
#endfor
#endfor

  for (var start = begin; start < to; start += TILE) {
    let count = min(TILE, to - start);
    if (local < TILE) { slots[local] = slotBefore(block.tableRow, start + local, to); }
#for i KEY_LOADS
    let thereAfter$i = slotBefore(block.tableRow, start + TILE + keyToken + KEY_STEP * $iu, to);
#endfor
    workgroupBarrier();

    // Scores.
#for j TOKENS
    var score$j = vec4f(0);
#endfor
    for (var chunk = 0u; chunk < chunks; chunk++) {
#for i KEY_LOADS
      {
        let value = select(widenFour(next0_$i, chunk * CHUNK + keyQuad), vec4f(0), keySlot$i == NONE);
#if HALF
        keys[keyQuad * KEY_STRIDE + keyToken + KEY_STEP * $iu] = vec4h(clamp(value, vec4f(-65504.0), vec4f(65504.0)));
#else
        keys[keyQuad * KEY_STRIDE + keyToken + KEY_STEP * $iu] = value;
#endif
      }
#endfor
      if (local < QUERIES) {
        let place = local % CHUNK * ROWS + min(local, QUERIES - 1u) / CHUNK / 4u;
        let column = local / CHUNK % 4u;
        queries[place][column] = nextQuery.x;
        queries[place + ROW_GROUPS][column] = nextQuery.y;
        queries[place + 2u * ROW_GROUPS][column] = nextQuery.z;
        queries[place + 3u * ROW_GROUPS][column] = nextQuery.w;
      }
      workgroupBarrier();
      nextQuery = q[queryAt + select(0u, chunk + 1u, chunk + 1u < chunks) * CHUNK] * scalars.softmaxScale;
      let ahead = chunk + DEPTH;
#for i KEY_LOADS
      let slot$i = select(thereAfter$i, keySlot$i, ahead < chunks);
#for d DEPTH
#if $d == LAST
      next$d_$i = fetchFour(select(slot$i, 0u, slot$i == NONE), select(ahead - chunks, ahead, ahead < chunks) * CHUNK + keyQuad);
#else
      next$d_$i = next$d+1_$i;
#endif
#endfor
#endfor
      for (var s = 0u; s < SHARE; s++) {
        let quad = part * SHARE + s;
        let q0 = queries[quad * ROWS + rowGroup];
        let q1 = queries[quad * ROWS + ROW_GROUPS + rowGroup];
        let q2 = queries[quad * ROWS + 2u * ROW_GROUPS + rowGroup];
        let q3 = queries[quad * ROWS + 3u * ROW_GROUPS + rowGroup];
#for j TOKENS
        {
          let key = vec4f(keys[quad * KEY_STRIDE + tokenGroup + TOKEN_GROUPS * $ju]);
          score$j = fma(q0, vec4f(key.x), score$j);
          score$j = fma(q1, vec4f(key.y), score$j);
          score$j = fma(q2, vec4f(key.z), score$j);
          score$j = fma(q3, vec4f(key.w), score$j);
        }
#endfor
      }
      workgroupBarrier();
    }
#for i KEY_LOADS
    keySlot$i = thereAfter$i;
#endfor
    // The values of the first four tokens on their way.
#for k 4
    var valueSlot$k = slots[$k];
    var stored$k = fetchFour(select(valueSlot$k, 0u, valueSlot$k == NONE), channel);
#endfor

    // The sets' shares are added up in the scores' memory, one set after another.
    for (var turn = 0u; turn < groups; turn++) {
      if (part == turn) {
#for j TOKENS
        {
          let t = tokenGroup + TOKEN_GROUPS * $ju;
          if (turn > 0u) { score$j += scores[t * ROW_GROUPS + rowGroup]; }
          if (turn + 1u == groups) {
            score$j = select(vec4f(LOWEST), score$j, isVisible(block, start + t, count > t && slots[t] != NONE, rowGroup));
          }
          scores[t * ROW_GROUPS + rowGroup] = score$j;
        }
#endfor
      }
      workgroupBarrier();
    }

    let ownRows = local % ROW_GROUPS;
#if SUBGROUPS
    // Maxima of a subgroup, then all, in the queries' memory.
    var own = vec4f(LOWEST);
    for (var i = 0u; i < SCORES_EACH; i++) {
      if (local + i * WORKGROUP < SCORES) { own = max(own, scores[local + i * WORKGROUP]); }
    }
    for (var step = ROW_GROUPS; step < subgroupSize; step *= 2u) { own = max(own, subgroupShuffleXor(own, step)); }
    if (local % subgroupSize < ROW_GROUPS) { queries[local / subgroupSize * ROW_GROUPS + ownRows] = own; }
    workgroupBarrier();
    var most = highest;
    for (var at = 0u; at < WORKGROUP / subgroupSize; at++) { most = max(most, queries[at * ROW_GROUPS + ownRows]); }
#else
    // Maxima: 8 parts of a tile, then all.
    if (local < 8u * ROW_GROUPS) {
      var most = vec4f(LOWEST);
      for (var t = local / ROW_GROUPS; t < TILE; t += 8u) { most = max(most, scores[t * ROW_GROUPS + local % ROW_GROUPS]); }
      partMaxima[local] = most;
    }
    workgroupBarrier();
    var most = highest;
    for (var part = 0u; part < 8u; part++) { most = max(most, partMaxima[part * ROW_GROUPS + ownRows]); }
#endif
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

    // Values: those of the next four tokens are on their way, and none waits for whether the token is there.
#for r ROW_VECTORS
    {
      let by = rescale[valueRows + $ru];
      out$r_0 *= by.x;
      out$r_1 *= by.y;
      out$r_2 *= by.z;
      out$r_3 *= by.w;
    }
#endfor
    for (var four = 0u; four < TILE / 4u; four++) {
      let first = four * 4u;
      if (first >= count) { break; }
#for k 4
      let value$k = select(widenFour(stored$k, channel), vec4f(0), valueSlot$k == NONE);
#endfor
#for k 4
      valueSlot$k = slots[min(first + 4u + $ku, TILE - 1u)];
      stored$k = fetchFour(select(valueSlot$k, 0u, valueSlot$k == NONE), channel);
#endfor
#for k 4
#for r ROW_VECTORS
      {
        let p = scores[(first + $ku) * ROW_GROUPS + valueRows + $ru];
        out$r_0 = fma(vec4f(p.x), value$k, out$r_0);
        out$r_1 = fma(vec4f(p.y), value$k, out$r_1);
        out$r_2 = fma(vec4f(p.z), value$k, out$r_2);
        out$r_3 = fma(vec4f(p.w), value$k, out$r_3);
      }
#endfor
#endfor
    }
    workgroupBarrier();
  }

#for r ROW_VECTORS
#for k 4
  {
    let row = (valueRows + $ru) * 4u + $ku;
    if (row < block.rows) { partials[(firstResult + row) * (LATENT / 4u) + channel] = out$r_$k; }
  }
#endfor
#endfor
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

/// Slot of token `t` of those before `to`, or NONE.
fn slotBefore(tableRow: u32, t: u32, to: u32) -> u32 {
  let found = slotOf(tableRow, min(t, to - 1u));
  return select(found, NONE, t >= to);
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
