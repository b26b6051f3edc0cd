/** A seeded generator for tests and benchmarks: the same seed gives the same numbers on every platform. */
export interface Random {
  /** A number in [0, 1) with 32 random bits. */
  uniform(): number;
  /** An integer in [0, `below`), for `below` up to 2^32. */
  integer(below: number): number;
  /** A number of the standard normal distribution. */
  normal(): number;
  /** `length` standard normal numbers, each times `scale` (1 when not given). */
  normals(length: number, scale?: number): Float32Array;
  /** 0 … `length` − 1 in random order (Fisher and Yates). */
  permutation(length: number): Int32Array;
}

/** A {@link Random} seeded by the low 32 bits of `seed`: mulberry32, with Box–Muller for the normal distribution. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const integer = (below: number): number => Math.floor(uniform() * below);
  const permutation = (length: number): Int32Array => {
    const order = Int32Array.from({ length }, (_, i) => i);
    for (let i = length - 1; i > 0; i--) {
      const j = integer(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  };
  return {
    uniform,
    integer,
    permutation,
    normal,
    normals: (length, scale = 1) => Float32Array.from({ length }, () => normal() * scale),
  };
}
