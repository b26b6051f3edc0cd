import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import type { KernelCase } from "../../kernels/common/cases/kernel-case.ts";
import { allCases } from "../../verify/kernels.ts";
import { summarise } from "../../verify/summary.ts";
import { verifyTargets } from "../../verify/targets.ts";
import { verifyKernels } from "../../verify/verify.ts";
import { integerFlag, type Part, partFlag } from "../flags.ts";
import { deviceOption, disableFeatureOption } from "../model-flags.ts";
import { withInterrupt } from "../model-session.ts";
import { printJson } from "../output.ts";
import { startProgress } from "../progress.ts";
import { printSummary } from "./verify-report.ts";

/** Neighbouring cases that stay together: they share a cache, which is slow to make. */
const CASES_A_RUN = 7;

interface VerifyFlags {
  readonly device?: string;
  readonly threads?: number;
  readonly filter?: string;
  readonly part?: Part;
  readonly quick?: boolean;
  readonly json?: boolean;
  readonly disableFeature?: readonly string[];
}

const help = `
Each case fills the device's memory with NaN, puts absurd page numbers into every unused block-table entry, runs one
kernel and compares what it wrote with the same formula in float64. The columns:
  rows checked    rows compared with float64. Of a large shape they are a sample spread over all rows; every other row
                  is still checked for NaN, infinities and exact zeros, and rows that must stay untouched for writes
  worst absolute  the largest difference from float64
  worst relative  that difference over max(|value|, root mean square of its row)
  tolerance       a value passes within the absolute or within the relative bound; cos bounds 1 − cosine of all values
The public suite of mla-decode has the shapes and tolerances of the public tests of that operation: every combination of
batch 1, 2, 6, 64 × query tokens 1, 2, 4 × context 20, 140, 4096 × heads 1, 3, 9, 63, 64, 126, 128, and batch 128 with
empty sequences. All of it takes about two minutes on two free cores and up to 3 GB of memory.

Examples:
  flashmla verify --quick                    a few cases of every kernel, in seconds
  flashmla verify --filter "mla-decode fp8"  one kernel, one kind of cache
  flashmla verify --device cuda --part 3/16  a sixteenth of the cases: run all sixteen side by side
  flashmla verify --device cpu --json        for a script: exit code 1 and "failures" when something is wrong`;

/** The cases that hold every word of `filter`. Throws UserError, naming the kernels, when there is none. */
function chooseCases({ filter = "", quick = false, part = { index: 1, of: 1 } }: VerifyFlags): KernelCase[] {
  const words = filter.split(/\s+/);
  const all = allCases();
  const matching = all.filter(({ kernel, group, shape }) => {
    const name = `${kernel} ${group} ${shape}`;
    return words.every((word) => name.includes(word));
  });
  if (matching.length === 0) {
    const kernels = [...new Set(all.map(({ kernel }) => kernel))].join(", ");
    throw new UserError(`No case matches ${JSON.stringify(filter)}; the kernels are ${kernels}.`);
  }
  const chosen = quick ? matching.filter(({ isQuick }) => isQuick) : matching;
  if (chosen.length === 0) {
    throw new UserError(`No quick case matches ${JSON.stringify(filter)}; run it without --quick.`);
  }
  return chosen.filter((_, i) => Math.floor(i / CASES_A_RUN) % part.of === part.index - 1);
}

async function verify(flags: VerifyFlags, signal: AbortSignal): Promise<void> {
  const cases = chooseCases(flags);
  const kind = flags.device ?? (process.env.FLASHMLA_DEVICE || undefined);
  const start = performance.now();
  const progress = startProgress("verifying", "cases");
  const { results, absent, notBegun } = await verifyKernels({
    ...{ cases, signal },
    targets: verifyTargets({ kind, threads: flags.threads, disableFeatures: flags.disableFeature }),
    onCase: (done) => progress.update(done, cases.length),
  }).finally(() => progress.stop());
  const summary = { ...summarise(results), absent, notBegun, seconds: (performance.now() - start) / 1000 };
  if (flags.json) printJson(summary);
  else printSummary(summary);
  if (!summary.isPassed && !signal.aborted) process.exitCode = 1;
}

/** Adds `flashmla verify`: every kernel on every device, against its float64 reference. */
export function addVerifyCommand(program: Command): void {
  program
    .command("verify")
    .description("Check every kernel on every device that is here against its float64 reference.")
    .addOption(deviceOption("one device alone; default: all that are here"))
    .option("--threads <n>", "threads of the CPU device; default: all processors", integerFlag(1, 256))
    .addOption(disableFeatureOption())
    .option("--filter <words>", "only the cases whose kernel, group and shape hold all these words")
    .option("--part <i/n>", "the i-th of n parts of the cases, to run them in n processes at once", partFlag)
    .option("--quick", "a few small cases of every kernel")
    .option("--json", "print one JSON object")
    .addHelpText("after", help)
    .action((flags: VerifyFlags) => withInterrupt((signal) => verify(flags, signal)));
}
