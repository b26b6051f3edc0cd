// The experts of a row and their weights. Workgroups are rows. Scores in float32; e^x with the error of two roundings, since the built-in one
// may be off by more. EXPERTS: at least their number.
// Buffers: logits, bias, ids, weights, rowCount; scalars: experts, perToken, scoring (0 softmax, 1 sigmoid), selection (0 greedy,
// 1 group-max, 2 group-top2), groups, groupsPerToken, normalise, scale, hasBias.
#include "../common/grid.wgsl"
#include "../common/workgroup-sum.wgsl"

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<i32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
@group(0) @binding(4) var<storage, read> rowCount: array<i32>;

/// Below every value that takes part.
const LEFT_OUT = -3e38;

struct Best { value: f32, index: u32 }

var<workgroup> scores: array<f32, EXPERTS>;
var<workgroup> values: array<f32, EXPERTS>;
/// A group's value; LEFT_OUT once it is chosen, and what keeps its members is `isKept`.
var<workgroup> groupValues: array<f32, WORKGROUP>;
var<workgroup> isKept: array<u32, WORKGROUP>;
var<workgroup> bests: array<Best, WORKGROUP>;
var<workgroup> chosen: Best;
var<workgroup> live: i32;

/// e^x for −87 ≤ x ≤ 87 (Cephes expf).
fn exponential(x: f32) -> f32 {
  let n = round(x * 1.44269504);
  let r = fma(n, 2.12194440e-4, fma(n, -0.693359375, x));
  var p = 1.9875691500e-4;
  p = fma(p, r, 1.3981999507e-3);
  p = fma(p, r, 8.3334519073e-3);
  p = fma(p, r, 4.1665795894e-2);
  p = fma(p, r, 1.6666665459e-1);
  p = fma(p, r, 0.5);
  p = fma(p, r * r, r) + 1.0;
  return p * bitcast<f32>((i32(n) + 127) << 23u);
}

fn better(a: Best, b: Best) -> Best {
  if (b.value > a.value || (b.value == a.value && b.index < a.index)) { return b; }
  return a;
}

/// The best of one candidate of each invocation, the lowest index among equals; the same for all.
fn workgroupBest(own: Best, local: u32) -> Best {
  bests[local] = own;
  for (var span = WORKGROUP / 2u; span > 0u; span /= 2u) {
    workgroupBarrier();
    if (local < span) { bests[local] = better(bests[local], bests[local + span]); }
  }
  workgroupBarrier();
  if (local == 0u) { chosen = bests[0]; }
  return workgroupUniformLoad(&chosen);
}

fn bestValue(count: u32, local: u32) -> Best {
  var best = Best(LEFT_OUT, 0xffffffffu);
  for (var i = local; i < count; i += WORKGROUP) { best = better(best, Best(values[i], i)); }
  return workgroupBest(best, local);
}

fn score(base: u32, count: u32, local: u32) {
  if (scalars.scoring == 1) {
    for (var i = local; i < count; i += WORKGROUP) {
      scores[i] = 1.0 / (1.0 + exponential(-clamp(logits[base + i], -80.0, 80.0)));
    }
    return;
  }
  for (var i = local; i < count; i += WORKGROUP) { values[i] = logits[base + i]; }
  workgroupBarrier();
  let largest = bestValue(count, local).value;
  var sum = 0.0;
  for (var i = local; i < count; i += WORKGROUP) {
    // Halves, since the difference of two large logits may not be a float32.
    let x = 2.0 * max(0.5 * logits[base + i] - 0.5 * largest, -43.5);
    let share = select(exponential(x), 0.0, x <= -87.0);
    scores[i] = share;
    sum += share;
  }
  let total = workgroupSum(sum, local);
  for (var i = local; i < count; i += WORKGROUP) { scores[i] /= total; }
}

/// Experts outside the best groups are left out. At most WORKGROUP groups.
fn keepBestGroups(count: u32, local: u32) {
  let groups = u32(scalars.groups);
  let size = count / groups;
  var own = LEFT_OUT;
  if (local < groups) {
    var second = LEFT_OUT;
    for (var i = local * size; i < (local + 1u) * size; i++) {
      if (values[i] > own) { second = own; own = values[i]; } else { second = max(second, values[i]); }
    }
    if (scalars.selection == 2 && size > 1u) { own += second; }
    isKept[local] = 0u;
  }
  for (var i = 0; i < scalars.groupsPerToken; i++) {
    let best = workgroupBest(Best(own, select(0xffffffffu, local, local < groups)), local);
    if (local == best.index) { own = LEFT_OUT; isKept[local] = 1u; }
  }
  workgroupBarrier();
  for (var i = local; i < count; i += WORKGROUP) {
    if (isKept[i / size] == 0u) { values[i] = LEFT_OUT; }
  }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = gridIndex(group);
  if (local == 0u) { live = select(0, rowCount[0], row < scalars.grid); }
  if (i32(row) >= workgroupUniformLoad(&live)) { return; }
  let count = u32(scalars.experts);
  let perToken = u32(scalars.perToken);
  score(row * count, count, local);
  workgroupBarrier();
  for (var i = local; i < count; i += WORKGROUP) {
    var value = scores[i];
    if (scalars.hasBias == 1) { value += bias[i]; }
    values[i] = value;
  }
  workgroupBarrier();
  if (scalars.selection != 0) { keepBestGroups(count, local); }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < perToken; i++) {
    let best = bestValue(count, local).index;
    workgroupBarrier();
    if (local == 0u) {
      values[best] = LEFT_OUT;
      ids[row * perToken + i] = i32(best);
    }
    workgroupBarrier();
    sum += scores[best];
  }
  let divisor = select(1.0, sum, scalars.normalise == 1);
  if (local == 0u) {
    for (var i = 0u; i < perToken; i++) {
      weights[row * perToken + i] = scores[u32(ids[row * perToken + i])] / divisor * scalars.scale;
    }
  }
}
