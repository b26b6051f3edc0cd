import { checkInteger } from "../../base/checks.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import { samplingWebGpu } from "./sampling.webgpu.ts";

/** One record per launch of `sampling`. */
export interface SamplingArguments {
  /** f32 [maxRows, vocab]. */
  readonly logits: DeviceBuffer;
  /** [maxRows, 32 bytes], by `packSamplingParams`. */
  readonly params: DeviceBuffer;
  /** i32 [maxRows]. */
  readonly out: DeviceBuffer;
  /** f32 [maxRows, vocab]. */
  readonly workspace: DeviceBuffer;
  /** i32 [1]: rows in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
  /** Logits in a row. */
  readonly vocab: number;
  /** Ids from here on are padding and never drawn. */
  readonly validVocab: number;
}

const kernel: KernelSource = {
  name: "sampling",
  buffers: ["logits", "params", "out", "workspace", "rowCount"],
  scalars: [
    ["vocab", "i32"],
    ["validVocab", "i32"],
  ],
  cpu: "sampling",
  cuda: { module: "sampling.fatbin", function: "sampling", blockSize: 1024, overlaps: true },
};

/**
 * Draws one token id per row: softmax(logits / temperature), cut to the top k, then to the top p of what is left, then
 * to min-p; a draw by Philox4x32-10 of (seed, step). Equal logits are ranked by id. Throws RangeError for sizes below 1
 * or `validVocab` past `vocab`.
 */
export function sampling(launch: Launch, args: SamplingArguments): void {
  checkInteger("maxRows", args.maxRows, { min: 1 });
  checkInteger("vocab", args.vocab, { min: 1, max: 2 ** 20 });
  checkInteger("validVocab", args.validVocab, { min: 1, max: args.vocab });
  const buffers = [args.logits, args.params, args.out, args.workspace, args.rowCount];
  const { target } = launch;
  const source = target.kind === "webgpu" ? { ...kernel, webgpu: samplingWebGpu(target) } : kernel;
  launch(source, args.maxRows, buffers, [args.vocab, args.validVocab]);
}

/** FLOPs and bytes of one call over `rows` rows with every filter on: eight passes over logits, nine over weights. */
export function samplingCost(rows: number, vocab: number): { flops: number; bytes: number } {
  return { flops: rows * vocab * 20, bytes: rows * vocab * 4 * 17 };
}
