import type { LaunchTiming, Program } from "../device.ts";
import type { CudaDriver } from "./driver.ts";
import type { SharedMemory } from "./launch-arena.ts";
import type { Work } from "./work.ts";

/** CU_STREAM_CAPTURE_MODE_RELAXED: other calls stay allowed while a stream is captured. */
const RELAXED = 2;

/** What a program needs of its device. */
export interface ProgramHost {
  readonly driver: CudaDriver;
  /** CUstream. */
  readonly stream: bigint;
  /** Enqueues one launch on the stream, or on a graph that is captured from it. */
  enqueue(work: Work, shared: SharedMemory): void;
  /** Throws when the device is closed; makes its context current. */
  enter(): void;
  idle(): Promise<void>;
  /** Forgets a program that was freed. */
  forget(program: CudaProgram): void;
}

/** A recorded step as a CUDA graph: one call of the driver a run. */
export class CudaProgram implements Program {
  #graph: bigint | null;

  constructor(
    readonly host: ProgramHost,
    readonly launches: readonly Work[],
    readonly shared: SharedMemory,
    readonly releaseShared: () => void,
  ) {
    this.#graph = this.#capture();
  }

  /** CUgraphExec of the launches, recorded off the device's stream. */
  #capture(): bigint {
    const { driver, stream } = this.host;
    driver.call("cuStreamBeginCapture_v2", stream, RELAXED);
    let failure: unknown;
    try {
      for (const launch of this.launches) this.host.enqueue(launch, this.shared);
    } catch (error) {
      failure = error;
    }
    const ended = new BigUint64Array(1);
    try {
      driver.call("cuStreamEndCapture", stream, ended);
    } catch (error) {
      throw failure ?? error;
    }
    const graph = ended[0] ?? 0n;
    try {
      if (failure !== undefined) throw failure;
      return driver.result("cuGraphInstantiateWithFlags", graph, 0);
    } finally {
      if (graph !== 0n) driver.call("cuGraphDestroy", graph);
    }
  }

  run(): void {
    this.host.enter();
    if (this.#graph === null) throw new RangeError("this program was freed");
    this.host.driver.call("cuGraphLaunch", this.#graph, this.host.stream);
  }

  idle(): Promise<void> {
    return this.host.idle();
  }

  time(): Promise<number> {
    return this.#timed(() => this.run());
  }

  async profile(): Promise<LaunchTiming[]> {
    const timings: LaunchTiming[] = [];
    for (const launch of this.launches) {
      const enqueue = () => this.host.enqueue(launch, this.shared);
      timings.push({ name: launch.source.name, milliseconds: await this.#timed(enqueue) });
    }
    return timings;
  }

  /** Milliseconds between two events around what `enqueue` submits. */
  async #timed(enqueue: () => void): Promise<number> {
    this.host.enter();
    const { driver, stream } = this.host;
    const start = driver.result("cuEventCreate", 0);
    const end = driver.result("cuEventCreate", 0);
    try {
      driver.call("cuEventRecord", start, stream);
      enqueue();
      driver.call("cuEventRecord", end, stream);
      await this.host.idle();
      const elapsed = new Float32Array(1);
      driver.call("cuEventElapsedTime", elapsed, start, end);
      return elapsed[0] ?? Number.NaN;
    } finally {
      driver.call("cuEventDestroy_v2", start);
      driver.call("cuEventDestroy_v2", end);
    }
  }

  free(): void {
    if (this.#graph === null) return;
    this.host.enter();
    this.host.driver.call("cuGraphExecDestroy", this.#graph);
    this.#graph = null;
    this.releaseShared();
    this.host.forget(this);
  }
}
