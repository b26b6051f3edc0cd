import { UserError } from "../base/errors.ts";
import type { Device, Program } from "../device/device.ts";
import { type BenchCase, BenchMemory } from "./case.ts";
import { timeRuns, warmUp } from "./gpu-memory.ts";

/** One call's speed within a graph of many. */
export interface GpuTiming {
  /** Inputs from memory: each call of the graph has its own, over more than 256 MB in all. */
  readonly coldMicroseconds: number;
  /** The same inputs again and again. */
  readonly warmMicroseconds: number;
  /** Against the float64 reference, as the case measures it. */
  readonly worstError: number;
}

/** Bytes over which cold calls go round: several times the second-level cache. */
export const COLD_BYTES = 300e6;
const MOST_COPIES = 64;
const LEAST_CALLS = 4;

/** The `rounds >> 1`th of that many sorted times of a program of `calls` calls, in microseconds a call, after a warm-up. */
export async function medianMicroseconds(program: Program, calls: number, rounds: number): Promise<number> {
  await warmUp(program);
  return ((await timeRuns(program, rounds))[rounds >> 1]! * 1e3) / calls;
}

/** Checks a case's results, then times it `rounds` times cold and warm; medians. Throws UserError when they are wrong. */
export async function timeGpuCase(device: Device, benchCase: BenchCase, rounds: number): Promise<GpuTiming> {
  const { name, cost, tolerance } = benchCase;
  const copies = Math.min(MOST_COPIES, Math.ceil(COLD_BYTES / cost.bytes));
  const calls = Math.max(LEAST_CALLS, copies);
  const memory = new BenchMemory(device);
  const programs: Program[] = [];
  try {
    const prepared = benchCase.prepare(memory, copies);
    for (const used of [copies, 1]) {
      const program = device.record((launch) => {
        for (let call = 0; call < calls; call++) prepared.enqueue(launch, call % used);
      });
      programs.push(program);
    }
    const [cold, warm] = programs as [Program, Program];
    cold.run();
    const worstError = await prepared.worstError();
    if (!(worstError <= tolerance)) {
      throw new UserError(
        `${name} is not timed because its results are wrong: error ${worstError}, at most ${tolerance} allowed.`,
      );
    }
    return {
      coldMicroseconds: await medianMicroseconds(cold, calls, rounds),
      warmMicroseconds: await medianMicroseconds(warm, calls, rounds),
      worstError,
    };
  } finally {
    for (const program of programs) program.free();
    memory.free();
  }
}
