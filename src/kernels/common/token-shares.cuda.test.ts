import { describe, expect, it } from "vitest";
import { createRandom } from "../../base/random.ts";
import { shareTokens } from "./token-shares.cuda.ts";

const limits = { computeUnits: 132, memoryBytes: 0, features: new Set<string>() };

describe("shareTokens", () => {
  it.each([
    [256, 32, { tokens: 32, build: 32, blocks: 256 }],
    [32, 1, { tokens: 1, build: 4, blocks: 32 }],
    [32, 32, { tokens: 8, build: 8, blocks: 128 }],
    [40, 33, { tokens: 16, build: 16, blocks: 120 }],
    [300, 500, { tokens: 500, build: 32, blocks: 300 }],
  ])("%i pieces, %i tokens", (pieces, rows, expected) => {
    expect(shareTokens(pieces, rows, limits)).toEqual(expected);
  });

  it("covers all tokens, in no more blocks than there is room for", () => {
    const random = createRandom(5);
    for (let i = 0; i < 500; i++) {
      const [pieces, rows] = [1 + random.integer(300), 1 + random.integer(200)];
      const { tokens, build, blocks } = shareTokens(pieces, rows, limits);
      const shares = blocks / pieces;
      expect(Number.isInteger(shares) && shares * tokens >= rows && (shares - 1) * tokens < rows).toBe(true);
      expect(shares === 1 || blocks <= limits.computeUnits).toBe(true);
      expect(build === 32 || tokens <= build).toBe(true);
    }
  });
});
