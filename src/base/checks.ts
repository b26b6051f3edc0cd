/** Inclusive limits of a number; a limit left out does not bind. */
export interface Range {
  readonly min?: number;
  readonly max?: number;
}

/** How `value` is shown in a message: short, with its kind where the text alone would not tell. */
export function describeValue(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}…` : value);
  if (typeof value === "bigint") return `${value}n (bigint)`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (ArrayBuffer.isView(value)) return `a ${value.constructor.name}`;
  if (typeof value === "object" && value !== null)
    return `an object of ${value.constructor?.name ?? "no class"}`;
  if (typeof value === "function") return "a function";
  return String(value);
}

function describeRange({ min, max }: Range): string {
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`;
  if (min !== undefined) return ` of at least ${min}`;
  return max === undefined ? "" : ` of at most ${max}`;
}

function isOutside(value: number, { min, max }: Range): boolean {
  return (min !== undefined && value < min) || (max !== undefined && value > max);
}

/**
 * Returns `value` if it is a safe integer within `range`. Throws TypeError when it is not a number, RangeError when it
 * is another number; both name the argument, what came and what was expected.
 */
export function checkInteger(name: string, value: unknown, range: Range = {}): number {
  if (Number.isSafeInteger(value) && !isOutside(value as number, range)) return value as number;
  const expected = `${name} must be an integer${describeRange(range)}, got ${describeValue(value)}`;
  throw typeof value === "number" ? new RangeError(expected) : new TypeError(expected);
}

/** Returns `value` if it is a finite number within `range`. Throws as {@link checkInteger} does. */
export function checkFinite(name: string, value: unknown, range: Range = {}): number {
  if (Number.isFinite(value) && !isOutside(value as number, range)) return value as number;
  const expected = `${name} must be a finite number${describeRange(range)}, got ${describeValue(value)}`;
  throw typeof value === "number" ? new RangeError(expected) : new TypeError(expected);
}

/** Returns `value` if it is one of `choices`. Throws TypeError when it is of no choice's kind, RangeError otherwise. */
export function checkOneOf<const Choice extends string | number>(
  name: string,
  value: unknown,
  choices: readonly Choice[],
): Choice {
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  const expected = `${name} must be one of ${choices.join(", ")}, got ${describeValue(value)}`;
  if (choices.some((choice) => typeof choice === typeof value)) throw new RangeError(expected);
  throw new TypeError(expected);
}

/** Returns `value` if it is a string that is not empty. Throws TypeError, or RangeError for the empty one. */
export function checkString(name: string, value: unknown): string {
  if (typeof value !== "string") throw new TypeError(`${name} must be a string, got ${describeValue(value)}`);
  if (value === "") throw new RangeError(`${name} must not be empty`);
  return value;
}

/** Returns `value` if it is a boolean. Throws TypeError otherwise. */
export function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value !== "boolean")
    throw new TypeError(`${name} must be true or false, got ${describeValue(value)}`);
  return value;
}

/** Throws RangeError unless `array` has exactly `expected` elements; returns it otherwise. */
export function checkLength<List extends { readonly length: number }>(
  name: string,
  array: List,
  expected: number,
): List {
  if (array.length !== expected) {
    throw new RangeError(`${name} must have ${expected} elements, got ${array.length}`);
  }
  return array;
}

/**
 * Throws RangeError unless `shape` has the sizes of `expected`, where null stands for any size; returns it otherwise.
 */
export function checkShape(
  name: string,
  shape: readonly number[],
  expected: readonly (number | null)[],
): readonly number[] {
  const matches =
    shape.length === expected.length && expected.every((size, axis) => size === null || size === shape[axis]);
  if (!matches) {
    const wanted = expected.map((size) => size ?? "any").join(", ");
    throw new RangeError(`${name} must have the shape [${wanted}], got [${shape.join(", ")}]`);
  }
  return shape;
}
