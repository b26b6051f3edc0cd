import type { DeviceBuffer } from "../../device/device.ts";
import type { WeightMatrix } from "./weight.ts";

/** A layer's projections of n tokens, and what turns them into absorbed queries and cache entries (DeepSeek-V2, arXiv 2405.04434, section 2.1). */
export interface LatentProjections {
  /** f32 [n, heads, nopeWidth + ropeWidth]: the query projection. */
  readonly q: DeviceBuffer;
  /** f32 [n, latentWidth + ropeWidth]: the output of kv_a. */
  readonly latent: DeviceBuffer;
  /** f32 [latentWidth]: weight of the latent's RMS norm. */
  readonly normWeight: DeviceBuffer;
  readonly epsilon: number;
  /** [heads · (nopeWidth + valueWidth), latentWidth]: per head W_UK's rows, then W_UV's. */
  readonly kvB: WeightMatrix;
  /** i32 [n]: positions, each within the rotary table. */
  readonly positions: DeviceBuffer;
  /** f32 [positions, ropeWidth]: cosines, then sines. */
  readonly rotaryTable: DeviceBuffer;
  /** Which channels form a pair: 2i and 2i + 1, or i and i + ropeWidth / 2. */
  readonly rotary: "interleaved" | "halves";
  /** f32 [positions]: multiplies the query of a position after rotary; null for none. */
  readonly queryScale: DeviceBuffer | null;
}
