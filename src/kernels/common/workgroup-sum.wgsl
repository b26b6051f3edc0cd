// The sum of one value of each invocation of a workgroup. WORKGROUP: its invocations, a power of two.

var<workgroup> workgroupSums: array<f32, WORKGROUP>;

/// The same sum, in the same order, for every invocation.
fn workgroupSum(value: f32, local: u32) -> f32 {
  workgroupSums[local] = value;
  for (var span = WORKGROUP / 2u; span > 0u; span /= 2u) {
    workgroupBarrier();
    if (local < span) { workgroupSums[local] += workgroupSums[local + span]; }
  }
  workgroupBarrier();
  let sum = workgroupSums[0];
  workgroupBarrier();
  return sum;
}
