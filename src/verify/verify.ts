import { errorMessage, UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import { CaseMemory } from "../kernels/common/cases/case-memory.ts";
import type { Finding, KernelCase, PreparedCase } from "../kernels/common/cases/kernel-case.ts";
import type { VerifyTarget } from "./targets.ts";

/** What came of one case on one device. */
export interface CaseResult {
  /** The device's name. */
  readonly device: string;
  readonly case: KernelCase;
  readonly outcome:
    | { readonly kind: "checked"; readonly findings: readonly Finding[] }
    /** The kernel or its host function threw. */
    | { readonly kind: "broken"; readonly reason: string }
    /** The device lacks the kernel or the memory. */
    | { readonly kind: "impossible"; readonly reason: string };
}

/** All results, and the targets that could not be opened. */
export interface VerifyResult {
  readonly results: readonly CaseResult[];
  /** Cases that were not begun because the signal came. */
  readonly notBegun: number;
  readonly absent: readonly { readonly kind: string; readonly reason: string }[];
}

/** What is verified, and who hears of it. */
export interface VerifyOptions {
  readonly cases: readonly KernelCase[];
  readonly targets: readonly VerifyTarget[];
  /** Called after each case with the number done. */
  readonly onCase?: (done: number) => void;
  /** No further case is begun once it aborts; what was done is kept. */
  readonly signal?: AbortSignal | undefined;
}

/** A target that is opened when it is needed. */
class OpenTarget {
  name = "";
  #device: Device | undefined;

  constructor(readonly target: VerifyTarget) {}

  async open(): Promise<Device> {
    this.#device ??= await this.target.open();
    this.name = this.#device.name;
    return this.#device;
  }

  async close(): Promise<void> {
    const device = this.#device;
    this.#device = undefined;
    await device?.close();
  }
}

async function runCase(target: OpenTarget, prepared: PreparedCase): Promise<CaseResult["outcome"]> {
  const memory = new CaseMemory(await target.open());
  let outcome: CaseResult["outcome"];
  try {
    outcome = { kind: "checked", findings: await prepared.check(memory) };
  } catch (error) {
    const kind = error instanceof UserError ? "impossible" : "broken";
    outcome = { kind, reason: errorMessage(error) };
  }
  // What a kernel leaves behind that trapped is not to be relied on.
  if (outcome.kind === "broken") await target.close();
  else memory.free();
  return outcome;
}

async function openTargets(targets: readonly VerifyTarget[]) {
  const open: OpenTarget[] = [];
  const absent: { kind: string; reason: string }[] = [];
  for (const target of targets) {
    const one = new OpenTarget(target);
    try {
      await one.open();
      open.push(one);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      absent.push({ kind: target.kind, reason: error.message });
    }
  }
  return { open, absent };
}

/**
 * Runs every case on every target, the truth of a case made once for all of them. Throws UserError when no target opens.
 */
export async function verifyKernels({
  cases,
  targets,
  onCase,
  signal,
}: VerifyOptions): Promise<VerifyResult> {
  const { open, absent } = await openTargets(targets);
  const results: CaseResult[] = [];
  let done = 0;
  try {
    if (open.length === 0) throw new UserError(absent.map(({ reason }) => reason).join(" "));
    for (const one of cases) {
      // Signals reach a busy process between cases.
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted) break;
      const prepared = one.prepare();
      for (const target of open) {
        const outcome = await runCase(target, prepared);
        results.push({ device: target.name, case: one, outcome });
      }
      onCase?.(++done);
    }
  } finally {
    await Promise.all(open.map((target) => target.close()));
  }
  return { results, absent, notBegun: cases.length - done };
}
