import { createInterface } from "node:readline";

/** The fixed prompt of both programs: a 32-bit linear congruential generator over the vocabulary from id 16 on. */
export function tokenSequence(length, vocabulary, seed = 12428) {
  let x = seed;
  return Array.from({ length }, () => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return 16 + ((x >>> 8) % (vocabulary - 16));
  });
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Answers lines of standard input, "WORK TOKENS", with one line of JSON each, until it ends; "ready" comes first. */
export async function serve(works) {
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const [work, tokens] = line.split(" ");
    console.log(JSON.stringify(await works[work](Number(tokens))));
  }
}
