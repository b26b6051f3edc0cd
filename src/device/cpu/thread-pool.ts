import { UserError } from "../../base/errors.ts";
import { COMMAND_BYTES, control, SCRATCH_BYTES, status } from "./control.ts";
import { processorCount, startThread, type Thread } from "./platform.ts";

/** Exports of the kernel module that the runtime uses; every other export is a kernel. */
interface RuntimeExports {
  readonly table: WebAssembly.Table;
  runProgram(control: number, program: number, count: number, threads: number, scratch: number): number;
}

/**
 * How often a thread looks before it sleeps: for 0.3 ms where each thread has a processor, which is longer than another
 * takes to wake (0.1 ms); hardly at all where a spinning thread would keep another from running.
 */
const SPINS = { alone: 100_000, crowded: 1000 } as const;

/** Threads over one shared memory; the caller is thread 0 and does its share. */
export class ThreadPool {
  readonly threads: number;
  /** Index in the function table of each kernel export. */
  readonly kernelIndex: ReadonlyMap<string, number>;
  readonly #runtime: RuntimeExports;
  readonly #words: Int32Array;
  readonly #address: number;
  #workers: Thread[] = [];

  private constructor(
    memory: WebAssembly.Memory,
    module: WebAssembly.Module,
    threads: number,
    address: number,
    spins: number,
  ) {
    this.threads = threads;
    this.#address = address;
    this.#words = new Int32Array(memory.buffer, address, control.bytes / 4);
    this.#words[control.spins / 4] = spins;
    const instance = new WebAssembly.Instance(module, { env: { memory } });
    this.#runtime = instance.exports as unknown as RuntimeExports;
    const names = kernelNames(module);
    const base = this.#runtime.table.grow(names.length);
    names.forEach((name, i) => {
      this.#runtime.table.set(base + i, instance.exports[name]);
    });
    this.kernelIndex = new Map(names.map((name, i) => [name, base + i]));
  }

  /** Bytes the pool needs at its address: the control block, then each thread's scratch. */
  static bytes(threads: number): number {
    return control.bytes + threads * SCRATCH_BYTES;
  }

  /** Starts `threads − 1` workers on `module`; resolves when all wait for work. */
  static async start(
    memory: WebAssembly.Memory,
    module: WebAssembly.Module,
    threads: number,
    address: number,
  ): Promise<ThreadPool> {
    const spins = threads <= (await processorCount()) ? SPINS.alone : SPINS.crowded;
    const pool = new ThreadPool(memory, module, threads, address, spins);
    if (threads > 1) await pool.#startWorkers(memory, module);
    return pool;
  }

  async #startWorkers(memory: WebAssembly.Memory, module: WebAssembly.Module): Promise<void> {
    const names = kernelNames(module);
    const starts = Array.from({ length: this.threads - 1 }, async (_, i) => {
      const shared = { control: this.#address, statusOffset: control.status, scratch: this.#scratch(i + 1) };
      this.#workers.push(await startThread({ module, memory, names, ...shared }));
    });
    await Promise.all(starts);
  }

  #scratch(thread: number): number {
    return this.#address + control.bytes + thread * SCRATCH_BYTES;
  }

  /**
   * Runs `count` commands at `program` on all threads and returns when they are done. Throws UserError when a kernel
   * trapped; the pool is unusable afterwards.
   */
  run(program: number, count: number, first = 0): void {
    const at = program + first * COMMAND_BYTES;
    try {
      if (this.#runtime.runProgram(this.#address, at, count, this.threads, this.#scratch(0))) return;
    } catch (cause) {
      Atomics.store(this.#words, control.status / 4, status.trapped);
      throw new UserError("A CPU kernel failed; open the device again.", { cause });
    }
    throw new UserError(
      "A CPU kernel failed on a worker thread or the device was closed; open the device again.",
    );
  }

  /** Ends the workers. */
  async close(): Promise<void> {
    Atomics.store(this.#words, control.status / 4, status.stop);
    Atomics.add(this.#words, control.generation / 4, 1);
    Atomics.notify(this.#words, control.generation / 4);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
    this.#workers = [];
  }
}

const runtimeNames = new Set(["runProgram", "runCommands", "workerLoop", "table", "memory"]);

function kernelNames(module: WebAssembly.Module): string[] {
  return WebAssembly.Module.exports(module)
    .filter(({ name, kind }) => kind === "function" && !runtimeNames.has(name))
    .map(({ name }) => name)
    .sort();
}
