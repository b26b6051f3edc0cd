/** error ≈ scale · length^exponent. */
export interface GrowthLaw {
  readonly scale: number;
  readonly exponent: number;
  /** Share of the variance of log(error) that the law explains; 1 where the error is constant. */
  readonly fit: number;
}

/**
 * The power law through `points` by least squares of logarithms. Points whose error is 0 say nothing to a logarithm and are left
 * out; null with fewer than three others.
 */
export function fitGrowth(
  points: readonly { readonly length: number; readonly error: number }[],
): GrowthLaw | null {
  const logs = points
    .filter(({ error }) => error > 0)
    .map(({ length, error }) => [Math.log(length), Math.log(error)] as const);
  if (logs.length < 3) return null;
  const mean = (axis: 0 | 1) => logs.reduce((sum, log) => sum + log[axis], 0) / logs.length;
  const [x, y] = [mean(0), mean(1)];
  const sum = (of: (dx: number, dy: number) => number) =>
    logs.reduce((total, log) => total + of(log[0] - x, log[1] - y), 0);
  const exponent = sum((dx, dy) => dx * dy) / sum((dx) => dx * dx);
  const total = sum((_, dy) => dy * dy);
  const rest = sum((dx, dy) => (dy - exponent * dx) ** 2);
  return { scale: Math.exp(y - exponent * x), exponent, fit: total < 1e-12 ? 1 : 1 - rest / total };
}

/** The error that `law` expects at `length`. */
export const predictError = ({ scale, exponent }: GrowthLaw, length: number): number =>
  scale * length ** exponent;
