/** Shapes as in mla-prologue.ts; everything in float64, weights already widened. */
export interface MlaPrologueReferenceArguments {
  readonly phase: "decode" | "prefill";
  readonly q: ArrayLike<number>;
  readonly latent: ArrayLike<number>;
  readonly normWeight: ArrayLike<number>;
  readonly epsilon: number;
  readonly kvB: ArrayLike<number>;
  readonly positions: ArrayLike<number>;
  readonly rotaryTable: ArrayLike<number>;
  readonly rotary: "interleaved" | "halves";
  readonly queryScale: ArrayLike<number> | null;
  readonly rows: number;
  readonly heads: number;
  readonly nopeWidth: number;
  readonly ropeWidth: number;
  readonly valueWidth: number;
  readonly latentWidth: number;
}

function rotated(args: MlaPrologueReferenceArguments, values: readonly number[], position: number): number[] {
  const half = args.ropeWidth / 2;
  const out = [...values];
  for (let pair = 0; pair < half; pair++) {
    const [i, j] = args.rotary === "interleaved" ? [2 * pair, 2 * pair + 1] : [pair, pair + half];
    const cos = args.rotaryTable[position * args.ropeWidth + pair]!;
    const sin = args.rotaryTable[position * args.ropeWidth + half + pair]!;
    out[i] = values[i]! * cos - values[j]! * sin;
    out[j] = values[j]! * cos + values[i]! * sin;
  }
  return out;
}

/** Cache entries [rows][d_c + d_r] before rounding, and queries [rows][heads][d_c or d_n, then d_r]. */
export function mlaPrologueReference(args: MlaPrologueReferenceArguments): {
  entries: number[][];
  queries: number[][][];
} {
  const { latentWidth, ropeWidth, nopeWidth, valueWidth, heads } = args;
  const entries: number[][] = [];
  const queries: number[][][] = [];
  for (let row = 0; row < args.rows; row++) {
    const position = args.positions[row]!;
    const width = latentWidth + ropeWidth;
    const x = Array.from({ length: width }, (_, i) => args.latent[row * width + i]!);
    const latent = x.slice(0, latentWidth);
    const mean = latent.reduce((sum, value) => sum + value * value, 0) / latentWidth;
    const normed = latent.map((value, i) => (value / Math.sqrt(mean + args.epsilon)) * args.normWeight[i]!);
    entries.push([...normed, ...rotated(args, x.slice(latentWidth), position)]);
    const scale = args.queryScale?.[position] ?? 1;
    queries.push(
      Array.from({ length: heads }, (_, head) => {
        const queryWidth = nopeWidth + ropeWidth;
        const start = (row * heads + head) * queryWidth;
        const query = Array.from({ length: queryWidth }, (_, i) => args.q[start + i]!);
        const rope = rotated(args, query.slice(nopeWidth), position);
        const weights = head * (nopeWidth + valueWidth) * latentWidth;
        const absorbed = Array.from({ length: latentWidth }, (_, c) => {
          let sum = 0;
          for (let j = 0; j < nopeWidth; j++) sum += query[j]! * args.kvB[weights + j * latentWidth + c]!;
          return sum;
        });
        const nope = args.phase === "decode" ? absorbed : query.slice(0, nopeWidth);
        return [...nope, ...rope].map((value) => value * scale);
      }),
    );
  }
  return { entries, queries };
}
