import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { rmsNormWebGpu } from "./rms-norm.webgpu.ts";

/** One record per launch of `rmsNorm`. */
export interface RmsNormArguments {
  /** f32 [maxRows, width]. */
  readonly x: DeviceBuffer;
  /** f32 [width]. */
  readonly weight: DeviceBuffer;
  /** f32 [maxRows, width]; may be `x` itself. */
  readonly out: DeviceBuffer;
  /** i32 [1]: rows in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
  /** A multiple of 4. */
  readonly width: number;
  readonly epsilon: number;
  /** Element type of `out`, which is not `x` then; default f32. CUDA also rounds to bf16, WebGPU to f16 as far as its range goes. */
  readonly outDtype?: "f32" | "bf16" | "f16";
}

const kernel: KernelSource = {
  name: "rms-norm",
  buffers: ["x", "weight", "out", "rowCount"],
  scalars: [
    ["width", "i32"],
    ["epsilon", "f32"],
  ],
  cpu: "rmsNorm",
};

const outDtypes = { cpu: ["f32"], cuda: ["f32", "bf16"], webgpu: ["f32", "f16"] } as const;

/**
 * out = x / √(mean(x²) + ε) · weight for each row, accumulated in float32. Throws RangeError for a width that is no
 * multiple of 4 or a negative epsilon.
 */
export function rmsNorm(launch: Launch, args: RmsNormArguments): void {
  checkInteger("maxRows", args.maxRows, { min: 1 });
  checkInteger("width", args.width, { min: 4 });
  if (args.width % 4 !== 0) throw new RangeError(`width: expected a multiple of 4, got ${args.width}`);
  checkFinite("epsilon", args.epsilon);
  const { target } = launch;
  const outDtype = checkOneOf("outDtype", args.outDtype ?? "f32", outDtypes[target.kind]);
  const cuda = { module: "rms-norm.fatbin", function: `rmsNorm_${outDtype}`, blockSize: 256, overlaps: true };
  const webgpu = target.kind === "webgpu" ? { webgpu: rmsNormWebGpu(target, outDtype === "f16") } : {};
  const buffers = [args.x, args.weight, args.out, args.rowCount];
  launch({ ...kernel, cuda, ...webgpu }, args.maxRows, buffers, [args.width, args.epsilon]);
}

/** FLOPs and bytes of one call over `rows` rows. */
export function rmsNormCost(rows: number, width: number): { flops: number; bytes: number } {
  return { flops: rows * width * 4, bytes: (2 * rows + 1) * width * 4 };
}
