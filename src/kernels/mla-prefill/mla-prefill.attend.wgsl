// Causal attention of ROWS queries of one head over expanded keys and values, 64 tokens a tile, as mla-decode.wgsl does it: 64
// invocations hold the scores of ROWS × 64, GROUPS such sets share the channels, which pass through workgroup memory 32 at a time.
// Workgroups are (block of queries, head of the group), the longest first.
//
// Constants: LATENT, ROPE, LATENT_DTYPE, PAGE_SIZE; NOPE, VALUE; ROWS (16), WORKGROUP.
#include "../common/grid.wgsl"
#include "../common/latent.wgsl"

@group(0) @binding(0) var<storage, read> q: array<vec4f>;
@group(0) @binding(1) var<storage, read> cache: array<LatentWords>;
@group(0) @binding(2) var<storage, read> blockTable: array<i32>;
@group(0) @binding(3) var<storage, read> cacheSeqlens: array<i32>;
@group(0) @binding(4) var<storage, read> rowCount: array<i32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(SCRATCH) var<storage, read> scratch: array<vec4f>;

const TILE = 64u;
const LOWEST = -1e30;
const GROUPS = WORKGROUP / 64u;
const ROW_GROUPS = ROWS / 4u;
const TOKENS = ROWS / 4u;
const TOKEN_GROUPS = TILE / TOKENS;
const CHUNK = 8u;
const SHARE = CHUNK / GROUPS;
const NOPE_QUADS = NOPE / 4u;
const KEY_QUADS = (NOPE + ROPE) / 4u;
const VALUE_QUADS = VALUE / 4u;
const EXPANDED_QUADS = (NOPE + VALUE) / 4u;
const KEY_STRIDE = TILE + 1u;
const KEY_LOADS = TILE * CHUNK / WORKGROUP;
const QUERY_LOADS = (ROWS * CHUNK + WORKGROUP - 1u) / WORKGROUP;
const SCORES = TILE * ROW_GROUPS;
const SCORES_EACH = (SCORES + WORKGROUP - 1u) / WORKGROUP;
/// Outputs are (4 rows, 4 channels); an invocation holds UNITS of them.
const ALL_UNITS = ROW_GROUPS * VALUE_QUADS;
const UNITS = (ALL_UNITS + WORKGROUP - 1u) / WORKGROUP;

var<workgroup> keys: array<vec4f, CHUNK * KEY_STRIDE>;
var<workgroup> queries: array<vec4f, CHUNK * ROWS>;
var<workgroup> scores: array<vec4f, SCORES>;
var<workgroup> partMaxima: array<vec4f, 8u * ROW_GROUPS>;
var<workgroup> rescale: array<vec4f, ROW_GROUPS>;

fn fetchKey(base: u32, t: u32, length: u32, quad: u32) -> vec4f {
  if (t >= length || quad >= KEY_QUADS) { return vec4f(0); }
  if (quad < NOPE_QUADS) { return scratch[(base + t) * EXPANDED_QUADS + quad]; }
  let slot = u32(blockTable[t / PAGE_SIZE]) * PAGE_SIZE + t % PAGE_SIZE;
  return latentFour(slot, LATENT / 4u + quad - NOPE_QUADS);
}

/// For each row of a row group, whether it sees the token at position `t`; `seen` is what the first row of the block sees.
fn isVisible(t: u32, rowGroup: u32, seen: i32) -> vec4<bool> {
  return vec4i(i32(t)) < vec4i(0, 1, 2, 3) + seen + i32(rowGroup * 4u);
}

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
  let seen = cached - i32(rowCountHere) + i32(firstRow) + 1;
  let end = u32(max(seen + i32(rows) - 1, 0));
  let heads = u32(scalars.heads);
  let base = head * u32(scalars.tokens);
  let queryBase = (firstRow * heads + u32(scalars.firstHead) + head) * KEY_QUADS;

  let part = local / 64u;
  let member = local % 64u;
  let rowGroup = member % ROW_GROUPS;
  let tokenGroup = member / ROW_GROUPS;
  let ownRows = local % ROW_GROUPS;

  // A scalar, not a constant: loops with barriers in them that are unrolled take software adapters tens of seconds to compile.
  let chunks = u32(scalars.chunks);

  var sum: array<vec4f, UNITS * 4u>;
  for (var u = 0u; u < UNITS * 4u; u++) { sum[u] = vec4f(0); }
  var highest = vec4f(LOWEST);
  var totals = vec4f(0);

  for (var start = 0u; start < end; start += TILE) {
    let count = min(TILE, end - start);
    var score: array<vec4f, TOKENS>;
    for (var j = 0u; j < TOKENS; j++) { score[j] = vec4f(0); }
    var nextKeys: array<vec4f, KEY_LOADS>;
    for (var i = 0u; i < KEY_LOADS; i++) {
      nextKeys[i] = fetchKey(base, start + (local + i * WORKGROUP) / CHUNK, end, local % CHUNK);
    }
    for (var chunk = 0u; chunk < chunks; chunk++) {
      for (var i = 0u; i < KEY_LOADS; i++) {
        keys[local % CHUNK * KEY_STRIDE + (local + i * WORKGROUP) / CHUNK] = nextKeys[i];
      }
      for (var i = 0u; i < QUERY_LOADS; i++) {
        let at = local + i * WORKGROUP;
        let row = at / CHUNK;
        let quad = chunk * CHUNK + at % CHUNK;
        if (row < ROWS) {
          var value = vec4f(0);
          if (row < rows && quad < KEY_QUADS) { value = q[queryBase + row * heads * KEY_QUADS + quad] * scalars.base2Scale; }
          queries[at % CHUNK * ROWS + row % 4u * ROW_GROUPS + row / 4u] = value;
        }
      }
      workgroupBarrier();
      if (chunk + 1u < chunks) {
        for (var i = 0u; i < KEY_LOADS; i++) {
          let t = start + (local + i * WORKGROUP) / CHUNK;
          nextKeys[i] = fetchKey(base, t, end, (chunk + 1u) * CHUNK + local % CHUNK);
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
        scores[t * ROW_GROUPS + rowGroup] = select(vec4f(LOWEST), score[j], isVisible(start + t, rowGroup, seen));
      }
    }
    workgroupBarrier();

    if (local < 8u * ROW_GROUPS) {
      var most = vec4f(LOWEST);
      for (var t = local / ROW_GROUPS; t < TILE; t += 8u) { most = max(most, scores[t * ROW_GROUPS + ownRows]); }
      partMaxima[local] = most;
    }
    workgroupBarrier();
    var most = highest;
    for (var p = 0u; p < 8u; p++) { most = max(most, partMaxima[p * ROW_GROUPS + ownRows]); }
    let factor = exp2(highest - most);
    highest = most;
    totals *= factor;
    if (local < ROW_GROUPS) { rescale[local] = factor; }
    for (var i = 0u; i < SCORES_EACH; i++) {
      let at = local + i * WORKGROUP;
      if (at < SCORES) {
        let p = select(vec4f(0), exp2(scores[at] - most), isVisible(start + at / ROW_GROUPS, ownRows, seen));
        scores[at] = p;
        totals += p;
      }
    }
    workgroupBarrier();

    for (var u = 0u; u < UNITS; u++) {
      let unit = local + u * WORKGROUP;
      if (unit < ALL_UNITS) {
        let unitRows = unit / VALUE_QUADS;
        let channel = unit % VALUE_QUADS;
        let by = rescale[unitRows];
        var s0 = sum[u * 4u] * by.x;
        var s1 = sum[u * 4u + 1u] * by.y;
        var s2 = sum[u * 4u + 2u] * by.z;
        var s3 = sum[u * 4u + 3u] * by.w;
        // Four loads are under way at a time; past the last token they find it again, with a probability of 0.
        for (var first = 0u; first < count; first += 4u) {
          var values: array<vec4f, 4>;
          for (var k = 0u; k < 4u; k++) {
            let t = min(start + first + k, end - 1u);
            values[k] = scratch[(base + t) * EXPANDED_QUADS + NOPE_QUADS + channel];
          }
          for (var k = 0u; k < 4u; k++) {
            let p = scores[(first + k) * ROW_GROUPS + unitRows];
            s0 += p.x * values[k];
            s1 += p.y * values[k];
            s2 += p.z * values[k];
            s3 += p.w * values[k];
          }
        }
        sum[u * 4u] = s0;
        sum[u * 4u + 1u] = s1;
        sum[u * 4u + 2u] = s2;
        sum[u * 4u + 3u] = s3;
      }
    }
    workgroupBarrier();
  }

  // The invocations' totals of a row are added up in the scores' memory, then kept as inverses in `rescale`.
  if (local < SCORES) { scores[local] = totals; }
  workgroupBarrier();
  if (local < ROW_GROUPS) {
    var total = vec4f(0);
    for (var at = local; at < min(SCORES, WORKGROUP); at += ROW_GROUPS) { total += scores[at]; }
    rescale[local] = select(vec4f(0), 1.0 / max(total, vec4f(1e-30)), total > vec4f(0));
  }
  workgroupBarrier();
  for (var u = 0u; u < UNITS; u++) {
    let unit = local + u * WORKGROUP;
    if (unit < ALL_UNITS) {
      let unitRows = unit / VALUE_QUADS;
      let channel = unit % VALUE_QUADS;
      for (var r = 0u; r < 4u; r++) {
        let row = unitRows * 4u + r;
        if (row < rows) {
          let at = ((firstRow + row) * heads + u32(scalars.firstHead) + head) * VALUE_QUADS + channel;
          out[at] = sum[u * 4u + r] * rescale[unitRows][r];
        }
      }
    }
  }
}
