import { UserError } from "../base/errors.ts";
import type { Device, Program } from "../device/device.ts";
import { type BenchCase, BenchMemory } from "./case.ts";
import { type CeilingMeter, type Ceilings, createCeilingMeter, secondsOf } from "./ceilings.ts";

/** A case's speed on one device. Rates are of the cost formula's FLOPs and bytes. */
export interface CaseResult {
  readonly name: string;
  readonly threads: number;
  /** Median over the rounds, of one call. */
  readonly milliseconds: number;
  readonly gflops: number;
  readonly gigabytesPerSecond: number;
  /** The ceiling that makes the longer floor. */
  readonly bound: "compute" | "memory";
  /** Median of floor / time, both of the same round. */
  readonly fraction: number;
  readonly worstError: number;
}

/** Ceilings of one thread count: medians over all rounds of all cases. */
export interface CeilingResult {
  readonly threads: number;
  readonly gigabytesPerSecond: number;
  readonly gflops: number;
}

/** What `runBench` measures. */
export interface BenchOptions {
  readonly cases: readonly BenchCase[];
  /** Devices with their thread counts; rounds go from one to the next, so that all see the same load. */
  readonly devices: readonly Device[];
  readonly rounds: number;
  /** Called before each case with its position. */
  readonly onCase?: (name: string, index: number) => void;
}

/** Bytes over which calls with copies of the inputs go round, so that each finds them in no cache. */
const COLD_BYTES = 96 * 2 ** 20;
/** FLOPs of a round at most, unless one call takes more. */
const ROUND_FLOPS = 4e9;

/** Middle value; the mean of the two middle ones for an even count, NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Calls of a round: enough to leave the caches, few enough to end soon. */
export function copiesFor({ flops, bytes }: BenchCase["cost"]): number {
  const most = Math.max(1, Math.floor(ROUND_FLOPS / flops));
  return Math.max(1, Math.min(64, most, Math.ceil(COLD_BYTES / bytes)));
}

interface Station {
  readonly device: Device;
  readonly memory: BenchMemory;
  readonly meter: CeilingMeter;
  readonly ceilings: Ceilings[];
}

interface Runner {
  readonly station: Station;
  readonly program: Program;
  readonly worstError: number;
  readonly rounds: { readonly seconds: number; readonly ceilings: Ceilings }[];
}

/**
 * Runs every case on every device: checks its results first, then times `rounds` rounds, each beside both ceilings.
 * Throws UserError for a case whose results are wrong.
 */
export async function runBench(
  options: BenchOptions,
): Promise<{ ceilings: CeilingResult[]; results: CaseResult[] }> {
  const stations = options.devices.map((device): Station => {
    return { device, memory: new BenchMemory(device), meter: createCeilingMeter(device), ceilings: [] };
  });
  const results: CaseResult[] = [];
  try {
    for (const [index, benchCase] of options.cases.entries()) {
      options.onCase?.(benchCase.name, index);
      results.push(...(await runCase(benchCase, stations, options.rounds)));
    }
  } finally {
    for (const { memory, meter } of stations) for (const held of [memory, meter]) held.free();
  }
  return { ceilings: stations.map(ceilingsOf), results };
}

async function runCase(
  benchCase: BenchCase,
  stations: readonly Station[],
  rounds: number,
): Promise<CaseResult[]> {
  const copies = copiesFor(benchCase.cost);
  const runners: Runner[] = [];
  for (const station of stations) runners.push(await prepareRunner(benchCase, station, copies));
  for (let round = 0; round < rounds; round++) {
    for (const { station, program, rounds } of runners) {
      const ceilings = station.meter.measure();
      station.ceilings.push(ceilings);
      rounds.push({ ceilings, seconds: secondsOf(() => program.run()) / copies });
    }
    // The event loop gets its turn between rounds.
    await runners[0]?.program.idle();
  }
  for (const { station, program } of runners) {
    program.free();
    station.memory.free();
  }
  return runners.map((runner) => resultOf(benchCase, runner));
}

async function prepareRunner(benchCase: BenchCase, station: Station, copies: number): Promise<Runner> {
  const prepared = benchCase.prepare(station.memory, copies);
  const program = station.device.record((launch) => {
    for (let copy = 0; copy < copies; copy++) prepared.enqueue(launch, copy);
  });
  program.run();
  await program.idle();
  const worstError = await prepared.worstError();
  if (worstError <= benchCase.tolerance) return { station, program, worstError, rounds: [] };
  throw new UserError(
    `${benchCase.name} is not timed because its results are wrong: error ${worstError}, at most ` +
      `${benchCase.tolerance} allowed; run \`flashmla verify\` to see which kernels are.`,
  );
}

function resultOf({ name, cost }: BenchCase, { station, rounds, worstError }: Runner): CaseResult {
  const seconds = median(rounds.map((round) => round.seconds));
  const floors = rounds.map(({ ceilings }) => ({
    compute: cost.flops / ceilings.flopsPerSecond,
    memory: cost.bytes / ceilings.bytesPerSecond,
  }));
  const fraction = median(
    floors.map(({ compute, memory }, i) => Math.max(compute, memory) / rounds[i]!.seconds),
  );
  const isCompute = median(floors.map(({ compute, memory }) => compute - memory)) > 0;
  return {
    name,
    threads: station.device.limits.computeUnits,
    milliseconds: seconds * 1e3,
    gflops: cost.flops / seconds / 1e9,
    gigabytesPerSecond: cost.bytes / seconds / 1e9,
    bound: isCompute ? "compute" : "memory",
    fraction,
    worstError,
  };
}

function ceilingsOf({ device, ceilings }: Station): CeilingResult {
  return {
    threads: device.limits.computeUnits,
    gigabytesPerSecond: median(ceilings.map((one) => one.bytesPerSecond)) / 1e9,
    gflops: median(ceilings.map((one) => one.flopsPerSecond)) / 1e9,
  };
}
