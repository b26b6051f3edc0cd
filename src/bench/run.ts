import { UserError } from "../base/errors.ts";
import type { Device, Program } from "../device/device.ts";
import { type BenchCase, BenchMemory } from "./case.ts";
import { type CeilingMeter, type Ceilings, createCeilingMeter, secondsOf } from "./ceilings.ts";

/**
 * A case's speed on one device. Rates are of the cost formula's FLOPs and bytes in the best round, as the ceilings are:
 * what else runs on the machine slows the median, and neither of them. The ceilings are those of the case's own rounds,
 * since what a machine shared with others reads per second changes by a third within minutes.
 */
export interface CaseResult {
  readonly name: string;
  readonly threads: number;
  /** Median over the rounds, of one call. */
  readonly milliseconds: number;
  /** The best round's, of one call. */
  readonly bestMilliseconds: number;
  readonly gflops: number;
  readonly gigabytesPerSecond: number;
  /** The ceiling that makes the longer floor. */
  readonly bound: "compute" | "memory";
  /** Of that ceiling. */
  readonly fraction: number;
  /** The best of this case's rounds. */
  readonly ceiling: { readonly gigabytesPerSecond: number; readonly gflops: number };
  readonly worstError: number;
}

/** Ceilings of one thread count: the best of all rounds of all cases, what the machine reaches when it is undisturbed. */
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
/** FLOPs of all copies and of one round at most, unless one call takes more: short rounds find the machine at rest. */
const ALL_FLOPS = 4e9;
const ROUND_FLOPS = 1.5e8;

/** Middle value; the mean of the two middle ones for an even count, NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Copies of a case's inputs, enough to leave the caches, and how many of them a round takes in turn. */
export function callsFor({ flops, bytes }: BenchCase["cost"]): { copies: number; perRound: number } {
  const within = (limit: number) => Math.max(1, Math.floor(limit / flops));
  const copies = Math.max(1, Math.min(64, within(ALL_FLOPS), Math.ceil(COLD_BYTES / bytes)));
  return { copies, perRound: Math.min(copies, within(ROUND_FLOPS)) };
}

interface Station {
  readonly device: Device;
  readonly memory: BenchMemory;
  readonly meter: CeilingMeter;
}

interface Runner {
  readonly benchCase: BenchCase;
  readonly station: Station;
  /** Rounds run them in turn; each makes `perRound` calls with copies of its own. */
  readonly programs: readonly Program[];
  readonly worstError: number;
  /** Seconds a call. */
  readonly rounds: number[];
  /** Measured before each round. */
  readonly ceilings: Ceilings[];
}

/**
 * Runs every case on every device: checks its results first, then times `rounds` rounds, each beside both ceilings.
 * Throws UserError for a case whose results are wrong.
 */
export async function runBench(
  options: BenchOptions,
): Promise<{ ceilings: CeilingResult[]; results: CaseResult[] }> {
  const stations = options.devices.map((device): Station => {
    return { device, memory: new BenchMemory(device), meter: createCeilingMeter(device) };
  });
  const measured: Runner[] = [];
  try {
    for (const [index, benchCase] of options.cases.entries()) {
      options.onCase?.(benchCase.name, index);
      measured.push(...(await runCase(benchCase, stations, options.rounds)));
    }
  } finally {
    for (const { memory, meter } of stations) for (const held of [memory, meter]) held.free();
  }
  const ceilings = stations.map((station) => ceilingsOf(station, measured));
  return { ceilings, results: measured.map(resultOf) };
}

async function runCase(
  benchCase: BenchCase,
  stations: readonly Station[],
  rounds: number,
): Promise<Runner[]> {
  const { perRound } = callsFor(benchCase.cost);
  const runners: Runner[] = [];
  for (const station of stations) runners.push(await prepareRunner(benchCase, station));
  for (let round = 0; round < rounds; round++) {
    for (const { station, programs, rounds, ceilings } of runners) {
      const program = programs[round % programs.length]!;
      ceilings.push(station.meter.measure());
      rounds.push(secondsOf(() => program.run()) / perRound);
    }
    // The event loop gets its turn between rounds.
    await runners[0]?.programs[0]?.idle();
  }
  for (const { station, programs } of runners) {
    for (const program of programs) program.free();
    station.memory.free();
  }
  return runners;
}

async function prepareRunner(benchCase: BenchCase, station: Station): Promise<Runner> {
  const { copies, perRound } = callsFor(benchCase.cost);
  const prepared = benchCase.prepare(station.memory, copies);
  const programs = Array.from({ length: Math.floor(copies / perRound) }, (_, group) =>
    station.device.record((launch) => {
      for (let i = 0; i < perRound; i++) prepared.enqueue(launch, group * perRound + i);
    }),
  );
  // Twice: the first run compiles.
  for (let run = 0; run < 2; run++) programs[0]?.run();
  await programs[0]?.idle();
  const worstError = await prepared.worstError();
  if (worstError <= benchCase.tolerance)
    return { benchCase, station, programs, worstError, rounds: [], ceilings: [] };
  throw new UserError(
    `${benchCase.name} is not timed because its results are wrong: error ${worstError}, at most ` +
      `${benchCase.tolerance} allowed; run \`flashmla verify\` to see which kernels are.`,
  );
}

function resultOf({ benchCase, station, rounds, worstError, ceilings }: Runner): CaseResult {
  const { name, cost } = benchCase;
  const best = Math.min(...rounds);
  const ceiling = bestOf(ceilings);
  const compute = cost.flops / ceiling.flopsPerSecond;
  const memory = cost.bytes / ceiling.bytesPerSecond;
  return {
    name,
    threads: station.device.limits.computeUnits,
    milliseconds: median(rounds) * 1e3,
    bestMilliseconds: best * 1e3,
    gflops: cost.flops / best / 1e9,
    gigabytesPerSecond: cost.bytes / best / 1e9,
    bound: compute > memory ? "compute" : "memory",
    fraction: Math.max(compute, memory) / best,
    ceiling: inGiga(ceiling),
    worstError,
  };
}

function bestOf(ceilings: readonly Ceilings[]): Ceilings {
  return {
    bytesPerSecond: Math.max(...ceilings.map((one) => one.bytesPerSecond)),
    flopsPerSecond: Math.max(...ceilings.map((one) => one.flopsPerSecond)),
  };
}

function inGiga({ bytesPerSecond, flopsPerSecond }: Ceilings): CaseResult["ceiling"] {
  return { gigabytesPerSecond: bytesPerSecond / 1e9, gflops: flopsPerSecond / 1e9 };
}

function ceilingsOf({ device }: Station, runners: readonly Runner[]): CeilingResult {
  const own = runners.filter(({ station }) => station.device === device);
  const threads = device.limits.computeUnits;
  return { threads, ...inGiga(bestOf(own.flatMap(({ ceilings }) => ceilings))) };
}
