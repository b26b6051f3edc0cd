/** Writes the modules of changed `.wgsl` files; the number of files written. */
export function buildWgsl(): number;
