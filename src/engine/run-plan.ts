import type { SamplingParams } from "../kernels/sampling/params.ts";
import type { AdjustLogits, DecodeRow, PrefillChunk, Runner } from "./runner-types.ts";
import type { Sequence } from "./sequence.ts";
import type { DecodeWork, PrefillWork, StepDraws, StepPlan } from "./step-plan.ts";

/** How the tokens of sequences are drawn. */
export interface DrawRules {
  /** Parameters of the draw of output token `outputIndex` of a sequence. */
  sampling(sequence: Sequence, outputIndex: number): SamplingParams;
  /** What to do with its logits before; null leaves them on the device. */
  adjust(sequence: Sequence, outputIndex: number): AdjustLogits | null;
}

/** The decode call of a plan: its rows, and what is done to which row's logits. */
export interface DecodeCall {
  readonly rows: readonly DecodeRow[];
  readonly adjust: ReadonlyMap<number, AdjustLogits>;
}

/** The rows of all decode works, in order; `isAlone` says that nothing but them is computed in the step. */
export function decodeCall(works: readonly DecodeWork[], rules: DrawRules, isAlone = true): DecodeCall {
  const rows: DecodeRow[] = [];
  const adjust = new Map<number, AdjustLogits>();
  for (const work of works) {
    const { sequence, position, tokenIds, slots } = work;
    const pages = sequence.cached!.pages;
    const silent = silentRows(work);
    const continues =
      isAlone && tokenIds.length === 1 && sequence.tokens.length + 1 < sequence.maxLength && !sequence.held;
    tokenIds.forEach((tokenId, i) => {
      const outputIndex = sequence.outputLength + i - silent;
      const rule = i < silent ? null : rules.adjust(sequence, outputIndex);
      if (rule !== null) adjust.set(rows.length, rule);
      const sampling = i < silent ? null : rules.sampling(sequence, outputIndex);
      rows.push({ tokenId, position: position + i, slot: slots[i]!, pages, sampling, continues });
    });
  }
  return { rows, adjust };
}

/** Rows of a work, from the first on, that draw nothing. */
function silentRows({ draws, tokenIds, drafts }: DecodeWork): number {
  return draws ? tokenIds.length - drafts - 1 : tokenIds.length;
}

/** The ids drawn by each decode work, from the ids of all rows. */
export function splitDraws(works: readonly DecodeWork[], drawn: ArrayLike<number>): number[][] {
  let at = 0;
  return works.map((work) => {
    const [first, end] = [at + silentRows(work), at + work.tokenIds.length];
    at = end;
    return Array.from({ length: end - first }, (_, i) => drawn[first + i]!);
  });
}

/** The chunk of a prefill work. */
export function prefillChunk(work: PrefillWork, rules: DrawRules): PrefillChunk {
  const { sequence, position, tokenIds, slots, draws } = work;
  const sampling = draws ? rules.sampling(sequence, 0) : null;
  return { tokenIds, position, slots, pages: sequence.cached!.pages, sampling };
}

/** Runs a plan: copies, then all decode rows in one call, then the chunks. Rejects as the runner does. */
export async function runPlan(runner: Runner, plan: StepPlan, rules: DrawRules): Promise<StepDraws> {
  for (const { from, to } of plan.copies) runner.copyPage(from, to);
  let decodes: number[][] = [];
  if (plan.decodes.length > 0) {
    const { rows, adjust } = decodeCall(plan.decodes, rules, plan.prefills.length === 0);
    decodes = splitDraws(plan.decodes, await runner.decode(rows, adjust));
  }
  const prefills: (number | null)[] = [];
  for (const work of plan.prefills) {
    const adjust = work.draws ? rules.adjust(work.sequence, 0) : null;
    prefills.push(await runner.prefill(prefillChunk(work, rules), adjust ?? undefined));
  }
  return { decodes, prefills };
}
