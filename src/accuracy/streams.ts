import { createRandom, type Random } from "../base/random.ts";

/** Synthetic contexts, by what is hard about them. */
export const streamNames = ["realistic", "far needle", "outliers", "all equal"] as const;

/** One of {@link streamNames}. */
export type StreamName = (typeof streamNames)[number];

/** What a stream is made for. */
export interface StreamShape {
  /** Cached tokens. */
  readonly length: number;
  /** d_c */
  readonly latentWidth: number;
  /** d_r */
  readonly ropeWidth: number;
  /** Query rows. */
  readonly heads: number;
  readonly seed: number;
}

/** A context that is made token by token, the same every time, so that a million tokens need no memory here. */
export interface Stream {
  /** [heads, d_c + d_r] */
  readonly queries: Float32Array;
  readonly softmaxScale: number;
  /** Calls `visit` with every token's unrounded entry [d_c + d_r] in order; the array is reused. */
  visit(visit: (entry: Float32Array, token: number) => void): void;
}

/** Standard deviation of the scores: a softmax with peaks, as trained heads have, over a background. */
const SCORE_SPREAD = 2;
const NEEDLE_BACKGROUND = 1;
/** How far the needle stands above what all other tokens together weigh: it takes about 97 %. */
const NEEDLE_LEAD = 4;
const OUTLIER_CHANNELS = 4;
const OUTLIER_SIZE = 30;
/** Standard deviation of the logarithm of a channel's size, as norm weights of trained models spread. */
const CHANNEL_SPREAD = 0.5;

const TABLE = createRandom(11).normals(2 ** 18);

/** Queries of unit-variance directions whose scores have the standard deviation `spread` over unit-variance keys. */
function makeQueries(random: Random, rows: number, width: number, softmaxScale: number, spread: number) {
  return random.normals(rows * width, spread / (softmaxScale * Math.sqrt(width)));
}

/** The size of each channel: lognormal, and a few of thirty times the size for outliers. */
function channelSizes(random: Random, width: number, latentWidth: number, name: StreamName): Float32Array {
  const sizes = random.normals(width, CHANNEL_SPREAD).map(Math.exp);
  if (name === "outliers") {
    for (let i = 0; i < OUTLIER_CHANNELS; i++) {
      sizes[Math.floor(((i + 0.5) * latentWidth) / OUTLIER_CHANNELS)]! *= OUTLIER_SIZE;
    }
  }
  return sizes;
}

/** The key that every row scores `score` against: the sum of the queries, each over its squared length. */
function makeNeedle(queries: Float32Array, rows: number, width: number, score: number): Float32Array {
  const needle = new Float32Array(width);
  for (let row = 0; row < rows; row++) {
    const query = queries.subarray(row * width, (row + 1) * width);
    const square = query.reduce((sum, value) => sum + value * value, 0);
    query.forEach((value, i) => {
      needle[i]! += (value * score) / square;
    });
  }
  return needle;
}

/**
 * The stream `name`: *realistic* has normal scores of spread 2 over channels of unlike size and a first token that draws
 * attention; *far needle* weighs 97 % on the first of all tokens; *outliers* has four channels of thirty times the size;
 * *all equal* has queries of zero, so that every token weighs the same and every sum is as long as the context.
 */
export function createStream(name: StreamName, shape: StreamShape): Stream {
  const { length, latentWidth, ropeWidth, heads, seed } = shape;
  const width = latentWidth + ropeWidth;
  const random = createRandom(seed);
  const softmaxScale = 192 ** -0.5;
  const sizes = channelSizes(random, width, latentWidth, name);
  const spread = name === "far needle" ? NEEDLE_BACKGROUND : SCORE_SPREAD;
  const queries = makeQueries(random, heads, width, softmaxScale, spread);
  queries.forEach((value, i) => {
    queries[i] = name === "all equal" ? 0 : value / sizes[i % width]!;
  });
  const lead = name === "far needle" ? Math.log(length) + NEEDLE_LEAD : 2 * SCORE_SPREAD;
  const first = makeNeedle(queries, heads, width, lead / softmaxScale);
  const offsets = random.integer(2 ** 32);
  return {
    queries,
    softmaxScale,
    visit: (visit) => {
      const source = createRandom(offsets);
      const entry = new Float32Array(width);
      for (let token = 0; token < length; token++) {
        const start = source.integer(TABLE.length - width);
        for (let i = 0; i < width; i++) entry[i] = TABLE[start + i]! * sizes[i]!;
        if (token === 0 && name !== "all equal") entry.set(first);
        visit(entry, token);
      }
    },
  };
}
