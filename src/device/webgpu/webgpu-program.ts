import type { DeviceBuffer, LaunchTiming, Program } from "../device.ts";

/** One dispatch, ready to be encoded. */
export interface Dispatch {
  readonly name: string;
  readonly pipeline: GPUComputePipeline;
  readonly bindings: GPUBindGroup;
  readonly groups: readonly [x: number, y: number];
}

/** What a program needs of its device. */
export interface ProgramHost {
  readonly gpu: GPUDevice;
  readonly hasTimestamps: boolean;
  /** Submits commands with the next batch, at the latest when control goes back to the event loop. */
  enqueue(commands: GPUCommandBuffer, afterSubmit?: () => void): void;
  /** Submits what was enqueued: what it uses must not be destroyed before. */
  flush(): void;
  /** Nanosecond timestamps of what `encode` measures, submitted at once. */
  timestamps(
    count: number,
    encode: (encoder: GPUCommandEncoder, queries: GPUQuerySet) => void,
  ): Promise<BigUint64Array>;
  idle(): Promise<void>;
  /** Throws when the device is closed or lost. */
  checkOpen(): void;
}

/** A recorded step: dispatches of one compute pass, encoded anew for every run. */
export class WebGpuProgram implements Program {
  #ahead: GPUCommandBuffer | null = null;
  #runs = 0;
  #isFree = false;

  constructor(
    readonly host: ProgramHost,
    readonly dispatches: readonly Dispatch[],
    readonly scalars: GPUBuffer,
    readonly scratch: DeviceBuffer | null,
  ) {}

  run(): void {
    this.host.checkOpen();
    if (this.#isFree) throw new RangeError("this program was freed");
    const commands = this.#ahead ?? this.#encode();
    this.#ahead = null;
    this.#runs++;
    this.host.enqueue(commands, this.#encodeAhead);
  }

  /** Encodes the next run of a program that is run again and again, while the device works on this one. */
  readonly #encodeAhead = (): void => {
    if (this.#runs > 1 && !this.#isFree) this.#ahead ??= this.#encode();
  };

  #encode(): GPUCommandBuffer {
    const encoder = this.host.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    let current: GPUComputePipeline | null = null;
    for (const { pipeline, bindings, groups } of this.dispatches) {
      if (pipeline !== current) pass.setPipeline(pipeline);
      current = pipeline;
      pass.setBindGroup(0, bindings);
      pass.dispatchWorkgroups(groups[0], groups[1]);
    }
    pass.end();
    return encoder.finish();
  }

  idle(): Promise<void> {
    return this.host.idle();
  }

  async profile(): Promise<LaunchTiming[]> {
    if (!this.host.hasTimestamps) return this.#profileByClock();
    const timings: LaunchTiming[] = [];
    // A query set holds at most 4096 values.
    for (let first = 0; first < this.dispatches.length; first += 2048) {
      const part = this.dispatches.slice(first, first + 2048);
      const times = await this.host.timestamps(2 * part.length, (encoder, querySet) => {
        part.forEach((dispatch, i) => {
          encodePass(encoder, [dispatch], querySet, 2 * i);
        });
      });
      part.forEach(({ name }, i) => {
        timings.push({ name, milliseconds: Number(times[2 * i + 1]! - times[2 * i]!) / 1e6 });
      });
    }
    return timings;
  }

  async #profileByClock(): Promise<LaunchTiming[]> {
    const timings: LaunchTiming[] = [];
    for (const dispatch of this.dispatches) {
      const one = new WebGpuProgram(this.host, [dispatch], this.scalars, null);
      timings.push({ name: dispatch.name, milliseconds: await one.time() });
    }
    return timings;
  }

  async time(): Promise<number> {
    if (this.host.hasTimestamps) {
      const times = await this.host.timestamps(2, (encoder, querySet) => {
        encodePass(encoder, this.dispatches, querySet, 0);
      });
      return Number(times[1]! - times[0]!) / 1e6;
    }
    await this.host.idle();
    const start = performance.now();
    this.run();
    await this.host.idle();
    return performance.now() - start;
  }

  free(): void {
    if (this.#isFree) return;
    this.#isFree = true;
    this.#ahead = null;
    this.host.flush();
    this.scalars.destroy();
    this.scratch?.free();
  }
}

/** A pass whose begin and end are written to queries `index` and `index + 1`. */
function encodePass(
  encoder: GPUCommandEncoder,
  dispatches: readonly Dispatch[],
  querySet: GPUQuerySet,
  index: number,
): void {
  const timestampWrites = {
    ...{ querySet, beginningOfPassWriteIndex: index, endOfPassWriteIndex: index + 1 },
  };
  const pass = encoder.beginComputePass({ timestampWrites });
  for (const { pipeline, bindings, groups } of dispatches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindings);
    pass.dispatchWorkgroups(groups[0], groups[1]);
  }
  pass.end();
}
