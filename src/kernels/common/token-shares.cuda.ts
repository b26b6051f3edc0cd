import type { CudaEntry, DeviceLimits } from "../../device/device.ts";
import type { WeightMatrix } from "./weight.ts";

/** Tokens that the builds of the layer's projection kernels multiply at a time. */
const BUILDS = [4, 8, 16, 32] as const;
const MOST = 32;
/** Tokens of a tile of the tensor core. */
const TILE = 8;

/** How many blocks share a projection of many heads, and how. */
export interface TokenShares {
  /** Tokens of a block. */
  readonly tokens: number;
  /** Tokens that its build multiplies at a time. */
  readonly build: number;
  readonly blocks: number;
}

/**
 * Shares `rows` tokens out where the weights alone, in `pieces`, leave multiprocessors without work: several blocks then read the
 * same weights, once from memory.
 */
export function shareTokens(pieces: number, rows: number, { computeUnits }: DeviceLimits): TokenShares {
  const groups = Math.ceil(rows / TILE);
  const shares = Math.max(1, Math.min(groups, Math.floor(computeUnits / pieces)));
  const tokens = Math.min(rows, Math.ceil(groups / shares) * TILE);
  const build = BUILDS.find((most) => tokens <= most) ?? MOST;
  return { tokens, build, blocks: pieces * Math.ceil(rows / tokens) };
}

/** The tensor map of W_UK and W_UV for those kernels: boxes of 64 rows by 64 channels of the latent. */
export function weightBoxes(
  buffers: readonly string[],
  kvB: WeightMatrix,
  latentWidth: number,
): NonNullable<CudaEntry["tensorMaps"]> {
  return [
    { buffer: buffers.indexOf("kvB"), rows: kvB.rows, columns: latentWidth, boxRows: 64, boxColumns: 64 },
  ];
}
