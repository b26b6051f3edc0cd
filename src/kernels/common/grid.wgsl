// A launch's grid counts workgroups; one of more than 65,535 is laid out over two dimensions.

/// Index of this workgroup in the launch's grid. A few may lie past `scalars.grid` and have nothing to do.
fn gridIndex(group: vec3u) -> u32 {
  return group.y * scalars.gridWidth + group.x;
}
