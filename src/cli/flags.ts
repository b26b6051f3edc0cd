import { InvalidArgumentError } from "commander";
import { deviceKinds, parseDevice } from "../device/open.ts";

/** A commander parser for integers from `min` to `max`. */
export function integerFlag(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`Expected an integer ${range}.`);
  };
}

/** A commander parser for numbers from `min` to `max`. */
export function numberFlag(min: number, max = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isFinite(value) && value >= min && value <= max) return value;
    const range = max === Number.POSITIVE_INFINITY ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`Expected a number ${range}.`);
  };
}

/** A commander parser for a device, as `openDevice` takes it. */
export function deviceFlag(text: string): string {
  try {
    parseDevice(text);
    return text;
  } catch {
    throw new InvalidArgumentError(
      `Expected one of ${deviceKinds.join(", ")}, or cuda:1 for the GPU of index 1.`,
    );
  }
}

/** A commander parser for devices separated by commas, each once. */
export function devicesFlag(text: string): string[] {
  return [...new Set(text.split(",").map((part) => deviceFlag(part.trim())))];
}

/** One of several parts of some work, which as many processes can take side by side. */
export interface Part {
  /** From 1 on. */
  readonly index: number;
  readonly of: number;
}

/** A commander parser for `i/n`. */
export function partFlag(text: string): Part {
  const [, index = 0, of = 0] = (text.match(/^(\d{1,3})\/(\d{1,3})$/) ?? []).map(Number);
  if (index >= 1 && index <= of) return { index, of };
  throw new InvalidArgumentError("Expected i/n with i from 1 to n, such as 3/16.");
}

/** A commander parser for a name that becomes part of a file's. */
export function nameFlag(text: string): string {
  if (/^[a-z0-9][a-z0-9.-]*$/i.test(text)) return text;
  throw new InvalidArgumentError("Expected letters, digits, dots and dashes.");
}

/** A commander parser for numbers above 0. */
export function positiveFlag(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError("Expected a number above 0.");
}

/** A commander parser for comma-separated token ids. */
export function idsFlag(text: string): number[] {
  const ids = text.split(",").map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : Number.NaN));
  if (ids.length > 0 && ids.every((id) => Number.isSafeInteger(id))) return ids;
  throw new InvalidArgumentError("Expected token ids separated by commas, such as 1,2,3.");
}

/** A commander parser for some of `choices`, separated by commas, each once. */
export function choicesFlag<Choice extends string>(choices: readonly Choice[]): (text: string) => Choice[] {
  return (text) => {
    const found = text.split(",").map((part) => choices.find((choice) => choice === part.trim()));
    const known = found.filter((choice) => choice !== undefined);
    if (known.length === found.length) return [...new Set(known)];
    throw new InvalidArgumentError(`Expected some of ${choices.join(", ")}.`);
  };
}
