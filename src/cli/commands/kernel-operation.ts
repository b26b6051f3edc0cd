import type { Device } from "../../device/device.ts";
import { compareRows } from "../../kernels/common/cases/compare.ts";
import type { Finding, Tolerance } from "../../kernels/common/cases/kernel-case.ts";
import type { KernelCaseFile } from "./kernel-case-file.ts";

/** One tensor that an operation made. */
export interface KernelOutput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
  /** The tensor of a case file that says what it should be, and how near it must come. */
  readonly expectedName: string;
  readonly tolerance: Tolerance;
}

/** A case that was read and found in order. */
export interface ReadCase {
  /** Its sizes, for people. */
  readonly description: string;
  /** Runs it; the file must still be open. */
  run(device: Device): Promise<KernelOutput[]>;
}

/** A kernel that can be run on the tensors of a file. */
export interface KernelOperation {
  readonly name: string;
  /** Checks everything about the case that does not depend on a device. Rejects with a UserError. */
  read(file: KernelCaseFile): Promise<ReadCase>;
}

/** Compares outputs with what the case file says they should be. Rejects with a UserError when it does not say so. */
export async function checkOutputs(
  file: KernelCaseFile,
  outputs: readonly KernelOutput[],
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { name, shape, data, expectedName, tolerance } of outputs) {
    const expected = await file.floats(expectedName, { dtypes: ["f32"], axes: shape });
    const width = shape.length === 4 ? shape[3]! : 1;
    const infinite = (row: number) =>
      Number.isFinite(expected[row * width]!) ? null : expected[row * width]!;
    findings.push(
      compareRows({
        ...{ output: name, actual: data, width, liveRows: data.length / width, expected, tolerance },
        constantOf: infinite,
      }),
    );
  }
  return findings;
}
