// The merge of the splits and W_UV in one. Workgroups are (block of TOKENS tokens, head, 16 values); each merges its tokens' splits into
// workgroup memory, then 16 invocations share a row of weights, which are fetched before all else. Constants: LATENT, DTYPE of the
// weights, TOKENS (1 or 4), COUNTED, MERGE_DEPTH of weigh-splits.wgsl, WEIGHTS_EACH = LATENT / 64.
#include "../common/grid.wgsl"
#include "../common/weigh-splits.wgsl"
#include "../common/weights.wgsl"

@group(0) @binding(0) var<storage, read> partials: array<vec4f>;
@group(0) @binding(1) var<storage, read> stats: array<vec2f>;
@group(0) @binding(2) var<storage, read> batchCount: array<i32>;
@group(0) @binding(3) var<storage, read> kvB: array<WeightWords>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const MERGED_ROWS = TOKENS;
/// Invocations that share the splits of a vector while merging.
const MERGE_LANES = select(1u, WORKGROUP / QUADS, TOKENS == 1u);
const QUADS = LATENT / 4u;
const WORKGROUP = 256u;
const VALUES = 16u;
const LANES = WORKGROUP / VALUES;

/// [lane, token, quad]; then the first lane has the sums.
var<workgroup> merged: array<vec4f, TOKENS * QUADS * MERGE_LANES>;
var<workgroup> sums: array<f32, TOKENS * WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let item = gridIndex(group);
  if (item >= scalars.grid) { return; }
  let heads = u32(scalars.heads);
  let sQ = u32(scalars.sQ);
  let splits = u32(scalars.splits);
  let valueWidth = u32(scalars.valueWidth);
  let blocks = (valueWidth + VALUES - 1u) / VALUES;
  let firstValue = item % blocks * VALUES;
  let head = item / blocks % heads;
  let firstToken = item / (blocks * heads) * TOKENS;
  var tokens = u32(scalars.tokens);
#if COUNTED
  tokens = min(tokens, u32(max(batchCount[0], 0)) * sQ);
#endif
  if (firstToken >= tokens) { return; }
  let count = min(TOKENS, tokens - firstToken);

  let lane = local % LANES;
  let value = firstValue + local / LANES;
  let weightRow = (head * (u32(scalars.nopeWidth) + valueWidth) + u32(scalars.nopeWidth) + min(value, valueWidth - 1u)) * QUADS;
#for i WEIGHTS_EACH
  let weight$i = kvB[weightRow + lane + LANES * $iu];
#endfor

  let rows = sQ * heads;
#if TOKENS == 1
  // The first splits' outputs come with their statistics, before anybody knows what they weigh.
  let quad = local % QUADS;
  let ownLane = local / QUADS;
  let firstResult = firstToken / sQ * splits * rows + firstToken % sQ * heads + head;
#for i MERGE_DEPTH
  let early$i = partials[(firstResult + min(ownLane + $iu * MERGE_LANES, splits - 1u) * rows) * QUADS + quad];
#endfor
#endif
  for (var at = local; at < count * splits; at += WORKGROUP) {
    let token = firstToken + at / splits;
    let first = token / sQ * splits * rows + token % sQ * heads + head;
    splitStats[at / splits * MOST_SPLITS + at % splits] = stats[first + at % splits * rows];
  }
  workgroupBarrier();
  weighSplits(local, count, splits);
#if TOKENS == 1
  {
    let later = ownLane + MERGE_DEPTH * MERGE_LANES;
    var value = mergeSplits(0u, firstResult, rows, splits, later, MERGE_LANES, QUADS, quad);
#for i MERGE_DEPTH
    {
      let split = ownLane + $iu * MERGE_LANES;
      let factor = select(splitStats[min(split, splits - 1u)].x, 0.0, split >= splits);
      value += select(early$i * factor, vec4f(0), factor == 0.0);
    }
#endfor
    let sum = mergedStats(0u).sum;
    merged[local] = select(value / sum, vec4f(0), sum == 0.0);
  }
#else
  for (var at = local; at < TOKENS * QUADS * MERGE_LANES; at += WORKGROUP) {
    let row = at / QUADS % TOKENS;
    let token = firstToken + row;
    var value = vec4f(0);
    if (row < count) {
      let first = token / sQ * splits * rows + token % sQ * heads + head;
      value = mergeSplits(row, first, rows, splits, at / (QUADS * TOKENS), MERGE_LANES, QUADS, at % QUADS);
      let sum = mergedStats(row).sum;
      value = select(value / sum, vec4f(0), sum == 0.0);
    }
    merged[at] = value;
  }
#endif
  workgroupBarrier();
  if (MERGE_LANES > 1u) {
    if (local < QUADS) {
      var value = merged[local];
      for (var one = 1u; one < MERGE_LANES; one++) { value += merged[local + one * QUADS]; }
      merged[local] = value;
    }
    workgroupBarrier();
  }

  var part: array<f32, TOKENS>;
  for (var i = 0u; i < TOKENS; i++) { part[i] = 0.0; }
#for i WEIGHTS_EACH
  {
    let weights = widenWeights(weight$i);
    for (var i = 0u; i < TOKENS; i++) { part[i] += dot(weights, merged[i * QUADS + lane + LANES * $iu]); }
  }
#endfor
  for (var i = 0u; i < TOKENS; i++) { sums[i * WORKGROUP + local] = part[i]; }
  workgroupBarrier();
  if (local < TOKENS * VALUES) {
    let i = local / VALUES;
    let mine = firstValue + local % VALUES;
    if (i < count && mine < valueWidth) {
      var sum = 0.0;
      for (var at = 0u; at < LANES; at++) { sum += sums[i * WORKGROUP + local % VALUES * LANES + at]; }
      out[((firstToken + i) * heads + head) * valueWidth + mine] = sum;
    }
  }
}
