/** Lengths of the ending that is looked for, longest first. */
const LONGEST_MATCH = 4;
const SHORTEST_MATCH = 2;

/** Tokens looked through, so that a draft costs no more in a long context. */
const WINDOW = 4096;

/**
 * Up to `count` tokens that may follow `tokens`: what followed the latest earlier place where the text ended as it does
 * now (prompt lookup decoding). Empty when the last two tokens never stood together before. A draft costs a few rows of
 * a step when it is wrong; the text stays the same either way.
 */
export function draftByRepetition(tokens: readonly number[], count: number): number[] {
  if (count < 1) return [];
  const oldest = Math.max(0, tokens.length - WINDOW);
  let best = 0;
  let bestEnd = -1;
  for (let end = tokens.length - 1; end > oldest && best < LONGEST_MATCH; end--) {
    const length = matchLength(tokens, end, oldest);
    if (length >= SHORTEST_MATCH && length > best) [best, bestEnd] = [length, end];
  }
  if (bestEnd < 0) return [];
  // Past the end of the text the draft goes on in a circle, as a text with a short period would.
  const period = tokens.length - bestEnd;
  return Array.from({ length: count }, (_, i) => tokens[bestEnd + (i % period)]!);
}

/** Tokens before `end` that equal the last ones of `tokens`, up to LONGEST_MATCH. */
function matchLength(tokens: readonly number[], end: number, oldest: number): number {
  let length = 0;
  while (
    length < LONGEST_MATCH &&
    end - 1 - length >= oldest &&
    tokens[end - 1 - length] === tokens[tokens.length - 1 - length]
  )
    length++;
  return length;
}
