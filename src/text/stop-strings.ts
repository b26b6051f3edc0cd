import { describeValue } from "../base/checks.ts";

/** What {@link StopStringMatcher.push} returns. */
export interface StopStringResult {
  /** The text that can be shown now; with a match, what came before it. */
  readonly text: string;
  /** The stop string that was found, or undefined. */
  readonly stop: string | undefined;
}

/** A stop string with its Knuth–Morris–Pratt failure table and the length of its prefix that the text ends in. */
interface Pattern {
  readonly stop: string;
  readonly failure: Uint32Array;
  matched: number;
}

/**
 * Finds stop strings in text that arrives in pieces. It holds back only the end of the text that may still grow into a
 * stop string. The match is the one that ends first, however the text was cut; of several that end together, the
 * longest. The work per character grows with the number of stop strings only, the memory with the longest of them.
 */
export class StopStringMatcher {
  readonly #patterns: Pattern[];
  readonly #includeStop: boolean;
  #held = "";
  #found: string | undefined;

  /**
   * `includeStop` (false when not given) leaves the matched string at the end of the text. Throws TypeError for a stop
   * that is no string and RangeError for one that is empty or holds half a surrogate pair.
   */
  constructor(stops: readonly string[], options: { readonly includeStop?: boolean } = {}) {
    this.#patterns = stops.map((stop, i) => {
      checkStop(`stops[${i}]`, stop);
      return { stop, failure: failureTable(stop), matched: 0 };
    });
    this.#includeStop = options.includeStop ?? false;
  }

  /** The stop string that was found, or undefined so far. */
  get found(): string | undefined {
    return this.#found;
  }

  /** Takes the next piece of text. After a match, pieces are ignored: every call returns "" and the same stop. */
  push(piece: string): StopStringResult {
    if (this.#found !== undefined) return { text: "", stop: this.#found };
    const held = this.#held.length;
    for (let i = 0; i < piece.length; i++) {
      const stop = this.#advance(piece.charCodeAt(i));
      if (stop === undefined) continue;
      const text = this.#held + piece;
      this.#found = stop;
      this.#held = "";
      return { text: text.slice(0, held + i + 1 - (this.#includeStop ? 0 : stop.length)), stop };
    }
    const text = this.#held + piece;
    const end = text.length - this.#patterns.reduce((longest, { matched }) => Math.max(longest, matched), 0);
    this.#held = end === 0 ? text : text.slice(end);
    return { text: text.slice(0, end), stop: undefined };
  }

  /** Ends the text and returns what was held back: an unfinished stop string is text after all. */
  flush(): string {
    const text = this.#held;
    this.#held = "";
    for (const pattern of this.#patterns) pattern.matched = 0;
    return text;
  }

  #advance(unit: number): string | undefined {
    let found: string | undefined;
    for (const pattern of this.#patterns) {
      const { stop, failure } = pattern;
      let matched = pattern.matched;
      while (matched > 0 && stop.charCodeAt(matched) !== unit) matched = failure[matched - 1]!;
      if (stop.charCodeAt(matched) === unit) matched++;
      pattern.matched = matched;
      if (matched === stop.length && stop.length > (found?.length ?? 0)) found = stop;
    }
    return found;
  }
}

function checkStop(name: string, stop: unknown): void {
  if (typeof stop !== "string") throw new TypeError(`${name} must be a string, got ${describeValue(stop)}`);
  if (stop === "") throw new RangeError(`${name} must not be empty`);
  if (/\p{Surrogate}/u.test(stop)) {
    throw new RangeError(`${name} must be well-formed Unicode, got ${describeValue(stop)}`);
  }
}

/** For each prefix of `stop`, the length of its longest proper prefix that is also its suffix. */
function failureTable(stop: string): Uint32Array {
  const table = new Uint32Array(stop.length);
  let matched = 0;
  for (let i = 1; i < stop.length; i++) {
    while (matched > 0 && stop[i] !== stop[matched]) matched = table[matched - 1]!;
    if (stop[i] === stop[matched]) matched++;
    table[i] = matched;
  }
  return table;
}
