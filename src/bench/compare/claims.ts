import { cacheBytesPerToken, compareForms, compareShapes, modelParameters } from "./shapes.ts";

/** The published figures of one row: an A100 and a 7B model, batch and context not stated. */
export interface PublishedClaim {
  readonly form: "standard" | "flash" | "latent-512" | "latent-256";
  readonly title: string;
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  readonly peakGigabytes: number;
  readonly cacheGigabytes: number;
}

/** The claims that this project answers. */
export const publishedClaims: readonly PublishedClaim[] = [
  {
    ...{ form: "standard", title: "standard", milliseconds: 38.2, tokensPerSecond: 26.2 },
    ...{ peakGigabytes: 18.4, cacheGigabytes: 6.2 },
  },
  {
    ...{ form: "flash", title: "FlashAttention-2", milliseconds: 22.1, tokensPerSecond: 45.2 },
    ...{ peakGigabytes: 14.8, cacheGigabytes: 6.2 },
  },
  {
    ...{ form: "latent-512", title: "latent 512", milliseconds: 13.4, tokensPerSecond: 74.6 },
    ...{ peakGigabytes: 10.3, cacheGigabytes: 0.8 },
  },
  {
    ...{ form: "latent-256", title: "latent 256", milliseconds: 11.8, tokensPerSecond: 84.7 },
    ...{ peakGigabytes: 9.1, cacheGigabytes: 0.4 },
  },
];

/**
 * Memory bandwidth of the A100 80 GB SXM, bytes a second (NVIDIA A100 data sheet, 2021): the fastest A100, so that floors are
 * as low as they can be.
 */
export const A100_BYTES_PER_SECOND = 2.039e12;

/** What arithmetic says about one published row. */
export interface ClaimArithmetic {
  readonly claim: PublishedClaim;
  /** Tokens a second from the claimed milliseconds at batch 1. */
  readonly tokensPerSecond: number;
  /** Cached tokens that the full heads' cache of 6.2 GB holds: the context that the claims imply. */
  readonly impliedTokens: number;
  /** The cache of this row at that context, gigabytes: c and k_r once for all heads. */
  readonly cacheGigabytes: number;
  /** The same if keys and values had a latent each and there were no rotary key. */
  readonly twoLatentsGigabytes: number;
  /** 16-bit weights and that cache: the least that a peak can be. */
  readonly leastPeakGigabytes: number;
  /** Time to read both once on an A100: the least that a token can take. */
  readonly floorMilliseconds: number;
}

/** Arithmetic of one claim, with the shape of a 7B model and its full cache as the anchor. */
export function claimArithmetic(claim: PublishedClaim): ClaimArithmetic {
  const shape = compareShapes["7b"]!;
  const form = compareForms.find(({ id }) => id === claim.form)!;
  const perToken = shape.layers * cacheBytesPerToken(shape, form);
  const fullPerToken = shape.layers * cacheBytesPerToken(shape, compareForms[0]!);
  const impliedTokens = (publishedClaims[0]!.cacheGigabytes * 1e9) / fullPerToken;
  const cacheGigabytes = (impliedTokens * perToken) / 1e9;
  const twoLatents = form.kind === "latent" ? shape.layers * 2 * form.latentWidth * 2 : perToken;
  const weightGigabytes = (2 * modelParameters(shape, form)) / 1e9;
  const leastPeakGigabytes = weightGigabytes + cacheGigabytes;
  return {
    ...{ claim, impliedTokens, cacheGigabytes, leastPeakGigabytes },
    tokensPerSecond: 1000 / claim.milliseconds,
    twoLatentsGigabytes: (impliedTokens * twoLatents) / 1e9,
    floorMilliseconds: (leastPeakGigabytes * 1e12) / A100_BYTES_PER_SECOND,
  };
}

/** One claimed quantity, and whether it follows. */
export interface ClaimVerdict {
  readonly claim: string;
  readonly follows: "yes" | "in part" | "no";
  readonly because: string;
}

const rounded = (value: number, digits: number) => value.toFixed(digits);

/** Which of the published figures follow from arithmetic, with the numbers that decide. */
export function claimVerdicts(): ClaimVerdict[] {
  const all = publishedClaims.map(claimArithmetic);
  const [, flash, wide, narrow] = all as [ClaimArithmetic, ClaimArithmetic, ClaimArithmetic, ClaimArithmetic];
  const gap = flash.claim.milliseconds - wide.claim.milliseconds;
  const savedMs = flash.floorMilliseconds - wide.floorMilliseconds;
  const list = (pick: (one: ClaimArithmetic) => number, digits: number) =>
    all.map((one) => rounded(pick(one), digits)).join(" / ");
  const tooSmall = all.filter(({ claim, leastPeakGigabytes }) => claim.peakGigabytes < leastPeakGigabytes);
  const fallsShort = tooSmall.map(({ claim }) => claim.title).join(", ");
  return [
    {
      claim: "tokens per second 26.2 / 45.2 / 74.6 / 84.7",
      follows: "yes",
      because: `they are 1000 / ms of one sequence: ${list((one) => one.tokensPerSecond, 1)}`,
    },
    {
      claim: "cache 6.2 GB for full heads",
      follows: "yes",
      because: `32 layers × 32 heads × 128 × 2 × 2 bytes = 524,288 bytes a token: 6.2 GB is ${rounded(flash.impliedTokens, 0)} cached tokens, though the context is not stated`,
    },
    {
      claim: "cache 0.8 and 0.4 GB for latent 512 and 256",
      follows: "in part",
      because: `only if keys and values had a latent each and no rotary key (${rounded(wide.twoLatentsGigabytes, 2)} and ${rounded(narrow.twoLatentsGigabytes, 2)} GB); one shared latent and its rotary key are ${rounded(wide.cacheGigabytes, 2)} and ${rounded(narrow.cacheGigabytes, 2)} GB`,
    },
    {
      claim: "peak 18.4 / 14.8 / 10.3 / 9.1 GB",
      follows: "no",
      because: `16-bit weights and the cache alone are ${list((one) => one.leastPeakGigabytes, 1)} GB, more than is claimed for ${fallsShort}; and decoding one token gives standard attention no 3.6 GB of scores`,
    },
    {
      claim: "38.2 / 22.1 / 13.4 / 11.8 ms per token",
      follows: "no",
      because: `they lie above the time to read weights and cache once (${list((one) => one.floorMilliseconds, 1)} ms), so they are possible; but the cache saved explains ${rounded(savedMs, 1)} of the ${rounded(gap, 1)} ms between FlashAttention-2 and latent 512`,
    },
  ];
}
