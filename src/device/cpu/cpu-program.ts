import type { KernelSource, LaunchTiming, Program } from "../device.ts";
import { COMMAND_BYTES } from "./control.ts";
import type { CpuBuffer } from "./cpu-buffer.ts";
import { laterTurn } from "./platform.ts";
import type { ThreadPool } from "./thread-pool.ts";

/** One launch. */
export interface Command {
  readonly source: KernelSource;
  readonly grid: number;
  readonly buffers: readonly CpuBuffer[];
  readonly scalars: readonly number[];
}

/** Items a thread takes at once: small enough to balance, large enough to spare the shared counter. */
function grainOf(grid: number, threads: number): number {
  return Math.max(1, Math.floor(grid / (threads * 8)));
}

function writeArguments(view: DataView, offset: number, { source, buffers, scalars }: Command): number {
  let at = offset;
  for (const buffer of buffers) {
    view.setUint32(at, buffer.address, true);
    at += 4;
  }
  scalars.forEach((value, i) => {
    if (source.scalars[i]?.[1] === "f32") view.setFloat32(at, value, true);
    else view.setInt32(at, value, true);
    at += 4;
  });
  return at;
}

/** Bytes of device memory that `commands` and their arguments take. */
export function programBytes(commands: readonly Command[]): number {
  const argumentWords = commands.reduce(
    (sum, { buffers, scalars }) => sum + buffers.length + scalars.length,
    0,
  );
  return commands.length * COMMAND_BYTES + argumentWords * 4;
}

/** Lays commands and their arguments out in `memory`, where every thread reads them. */
function encodeCommands(
  pool: ThreadPool,
  memory: CpuBuffer,
  commands: readonly Command[],
  view: DataView,
): void {
  let argument = commands.length * COMMAND_BYTES;
  commands.forEach((command, i) => {
    const at = i * COMMAND_BYTES;
    view.setUint32(at, pool.kernelIndex.get(command.source.cpu ?? "") ?? 0, true);
    view.setUint32(at + 4, memory.address + argument, true);
    view.setUint32(at + 8, command.grid, true);
    view.setUint32(at + 12, grainOf(command.grid, pool.threads), true);
    argument = writeArguments(view, argument, command);
  });
}

/** A recorded step on the CPU: commands that every thread walks. */
export class CpuProgram implements Program {
  constructor(
    readonly pool: ThreadPool,
    readonly memory: CpuBuffer,
    readonly commands: readonly Command[],
    /** Of `memory`, which has room for {@link programBytes}. */
    view: DataView,
  ) {
    encodeCommands(pool, memory, commands, view);
  }

  run(): void {
    this.pool.run(this.memory.address, this.commands.length);
  }

  /** The CPU runs in `run`; this only gives other tasks of the event loop their turn. */
  async idle(): Promise<void> {
    await laterTurn();
  }

  async profile(): Promise<LaunchTiming[]> {
    return this.commands.map(({ source }, i) => {
      const start = performance.now();
      this.pool.run(this.memory.address, 1, i);
      return { name: source.name, milliseconds: performance.now() - start };
    });
  }

  async time(): Promise<number> {
    const start = performance.now();
    this.run();
    return performance.now() - start;
  }

  free(): void {
    this.memory.free();
  }
}
