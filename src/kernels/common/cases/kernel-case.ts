import type { CaseMemory } from "./case-memory.ts";

/** How near a kernel must come to its float64 reference. */
export interface Tolerance {
  /** A value passes within `absolute` of the truth … */
  readonly absolute: number;
  /** … or within `relative` times the truth's magnitude. */
  readonly relative: number;
  /** The most that 1 − cosine over all compared values may be; left out where it is not judged. */
  readonly cosine?: number;
}

/** What came of one output of one case. */
export interface Finding {
  /** Name of the output: `out`, `lse`, `ids` … */
  readonly output: string;
  /** Rows the kernel had to write. */
  readonly rows: number;
  /** Rows compared with the float64 reference: of a large shape only a sample. */
  readonly checkedRows: number;
  /** Largest difference from the truth; NaN when it could not be judged. */
  readonly absolute: number;
  /** Largest difference over max(|truth|, root mean square of its row); NaN when it could not be judged. */
  readonly relative: number;
  /** 1 − cosine over all compared values; 0 where it is not judged. */
  readonly cosine: number;
  readonly tolerance: Tolerance;
  /** What is wrong, and where; null when the output passes. */
  readonly problem: string | null;
}

/** A case whose inputs and truth are made, ready for any number of devices. */
export interface PreparedCase {
  /** Uploads the inputs, runs the kernel once and compares every output. The caller frees the memory. */
  check(memory: CaseMemory): Promise<Finding[]>;
}

/** One shape of one kernel, on any device. */
export interface KernelCase {
  /** The kernel's folder. */
  readonly kernel: string;
  /** What the case is about, for the report: "public suite", "fp8 cache" … Cases of one group share tolerances. */
  readonly group: string;
  /** The shape, in words: `b=2 s_q=1 …`. */
  readonly shape: string;
  /** Whether it belongs to the few that a quick look runs. */
  readonly isQuick: boolean;
  /** Makes the inputs and the truth, the same ones at every call. */
  prepare(): PreparedCase;
}
