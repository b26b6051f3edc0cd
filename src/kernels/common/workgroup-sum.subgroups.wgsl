// The sum of one value of each invocation of a workgroup, by subgroups of SUBGROUP. WORKGROUP: its invocations; SUBGROUPS: whether there are any.

#if SUBGROUPS
var<workgroup> subgroupSums: array<f32, WORKGROUP / SUBGROUP>;

/// The same sum, in the same order, for every invocation.
fn subgroupsSum(value: f32, local: u32) -> f32 {
  let own = subgroupAdd(value);
  if (local % SUBGROUP == 0u) { subgroupSums[local / SUBGROUP] = own; }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < WORKGROUP / SUBGROUP; i++) { sum += subgroupSums[i]; }
  workgroupBarrier();
  return sum;
}
#endif
