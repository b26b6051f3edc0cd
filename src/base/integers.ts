/** The least integer not under `value / divisor`, for integers `value` ≥ 0 and `divisor` ≥ 1. */
export function ceilDivide(value: number, divisor: number): number {
  return Math.ceil(value / divisor);
}

/** The least multiple of `multiple` that is not under `value`, for integers `value` ≥ 0 and `multiple` ≥ 1. */
export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

/** Whether `value` is 1, 2, 4, 8 …, up to 2^53. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && nextPowerOfTwo(value) === value;
}

/** The least power of two that is not under `value`, for an integer `value` ≥ 1. */
export function nextPowerOfTwo(value: number): number {
  let power = 1;
  while (power < value) power *= 2;
  return power;
}
