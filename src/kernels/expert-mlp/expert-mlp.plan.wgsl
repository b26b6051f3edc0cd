// Sorts the (token, choice) pairs by expert, in the order of tokens within one. One workgroup; an invocation has every 256th expert.
// Buffers: expertIds, plan (offsets [experts + 1], pairs), rowCount; scalars: experts (at most 4096), perToken.

@group(0) @binding(0) var<storage, read> expertIds: array<u32>;
@group(0) @binding(1) var<storage, read_write> plan: array<u32>;
@group(0) @binding(2) var<storage, read> rowCount: array<i32>;

const WORKGROUP = 256u;
/// Experts that an invocation adds up: 256 · 16 = 4096.
const RUN = 16u;

var<workgroup> runTotals: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) local: u32) {
  let experts = u32(scalars.experts);
  let pairs = u32(max(rowCount[0], 0)) * u32(scalars.perToken);
  for (var expert = local; expert < experts; expert += WORKGROUP) {
    var count = 0u;
    for (var pair = 0u; pair < pairs; pair++) { count += select(0u, 1u, expertIds[pair] == expert); }
    plan[expert] = count;
  }
  storageBarrier();
  var own: array<u32, RUN>;
  var sum = 0u;
  for (var i = 0u; i < RUN; i++) {
    own[i] = sum;
    let expert = local * RUN + i;
    if (expert < experts) { sum += plan[expert]; }
  }
  runTotals[local] = sum;
  workgroupBarrier();
  var before = 0u;
  for (var i = 0u; i < local; i++) { before += runTotals[i]; }
  storageBarrier();
  for (var i = 0u; i < RUN; i++) {
    let expert = local * RUN + i;
    if (expert < experts) { plan[expert] = before + own[i]; }
    if (expert == experts - 1u) { plan[experts] = before + sum; }
  }
  storageBarrier();
  for (var expert = local; expert < experts; expert += WORKGROUP) {
    var position = experts + 1u + plan[expert];
    for (var pair = 0u; pair < pairs; pair++) {
      if (expertIds[pair] != expert) { continue; }
      plan[position] = pair;
      position++;
    }
  }
}
