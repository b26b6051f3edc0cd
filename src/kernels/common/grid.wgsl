// A launch's grid counts workgroups; one of more than 65,535 is laid out over two dimensions.

/// Index of this workgroup in the launch's grid. A few may lie past `scalars.grid` and have nothing to do.
fn gridIndex(group: vec3u) -> u32 {
  return group.y * scalars.gridWidth + group.x;
}

/// `count`, in a way that compilers cannot see through: a loop up to it is not unrolled. Mesa's software Vulkan takes seconds for long loops
/// over workgroup memory that are.
fn unseen(count: u32) -> u32 {
  return min(count, scalars.gridWidth * count);
}
