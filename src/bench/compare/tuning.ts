import { median } from "../run.ts";
import { attentionKernelCost } from "./attention.ts";
import type { CompareCell } from "./attention-buffers.ts";
import type { CompareRow } from "./rows.ts";
import { type CompareFormId, type CompareShape, compareForms } from "./shapes.ts";

/** How near one form's attention kernels come to the ceiling that binds them. */
export interface TuningShare extends CompareCell {
  readonly form: CompareFormId;
  readonly bound: "memory" | "compute";
  /** The time that the ceiling allows over the time taken. */
  readonly share: number;
}

/** The share of the ceiling that binds it, as measured beside it, of every measured row of one layer's attention. */
export function tuningShares(rows: readonly CompareRow[], shape: CompareShape): TuningShare[] {
  return rows.flatMap(({ form, context, batch, outcome }) => {
    if (outcome.status !== "measured" || outcome.kernelMilliseconds === undefined) return [];
    const { ceilings } = outcome;
    if (ceilings === undefined || ceilings === null) return [];
    const known = compareForms.find(({ id }) => id === form)!;
    const { flops, bytes } = attentionKernelCost(shape, known, { context, batch });
    const [compute, memory] = [flops / ceilings.flopsPerSecond, bytes / ceilings.bytesPerSecond];
    const share = (1000 * Math.max(compute, memory)) / outcome.kernelMilliseconds;
    return [{ form, context, batch, bound: compute > memory ? "compute" : "memory", share }];
  });
}

/** The median share of each form over the cells where all forms of `shares` were measured. */
export function medianShares(shares: readonly TuningShare[]): Map<CompareFormId, number> {
  const forms = [...new Set(shares.map(({ form }) => form))];
  const cellOf = ({ context, batch }: CompareCell) => `${context} ${batch}`;
  const isCommon = (share: TuningShare) =>
    forms.every((form) => shares.some((one) => one.form === form && cellOf(one) === cellOf(share)));
  const common = shares.filter(isCommon);
  if (common.length === 0) return new Map();
  return new Map(
    forms.map((form) => [form, median(common.filter((one) => one.form === form).map(({ share }) => share))]),
  );
}
