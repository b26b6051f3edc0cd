import type { WasmVariant } from "./wasm-module.ts";

/** What a worker thread is started with. */
export interface ThreadStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Exports of the module in the order of the function table. */
  readonly names: readonly string[];
  /** Address of the control block. */
  readonly control: number;
  /** Byte offset of its status word. */
  readonly statusOffset: number;
  /** Address of the thread's scratch memory. */
  readonly scratch: number;
}

/** A thread that waits for work. */
export interface Thread {
  terminate(): Promise<unknown>;
}

/** The worker's whole code: the same instance over the same memory, then the loop inside WebAssembly. */
const workerSource = `
const { parentPort, workerData } = require("node:worker_threads");
const { module, memory, names, control, statusOffset, scratch } = workerData;
const words = new Int32Array(memory.buffer, control, 64);
const instance = new WebAssembly.Instance(module, { env: { memory } });
const base = instance.exports.table.grow(names.length);
names.forEach((name, i) => instance.exports.table.set(base + i, instance.exports[name]));
parentPort.postMessage("ready");
try {
  instance.exports.workerLoop(control, 0, scratch);
} catch (error) {
  Atomics.store(words, statusOffset / 4, 2);
  parentPort.postMessage(String(error));
}
`;

/** Processors this process may use. */
export async function processorCount(): Promise<number> {
  const { availableParallelism } = await import("node:os");
  return availableParallelism();
}

/** Why there can be no second thread here; null where there can. */
export function threadObstacle(): string | null {
  return null;
}

/** Starts a worker thread; resolves when it is about to wait for work. */
export async function startThread(start: ThreadStart): Promise<Thread> {
  const { Worker } = await import("node:worker_threads");
  const worker = new Worker(workerSource, { eval: true, workerData: start });
  worker.unref();
  await new Promise<void>((resolve, reject) => {
    worker.once("message", () => resolve());
    worker.once("error", reject);
  });
  return worker;
}

const files: Record<WasmVariant, URL> = {
  relaxed: new URL("../../../wasm/kernels-relaxed.wasm", import.meta.url),
  simd: new URL("../../../wasm/kernels-simd.wasm", import.meta.url),
};

/** A build of the kernels. */
export async function readKernels(variant: WasmVariant): Promise<Uint8Array<ArrayBuffer>> {
  const { readFile } = await import("node:fs/promises");
  return new Uint8Array(await readFile(files[variant]));
}

/**
 * Runs `compile` with the flags Node 20 needs: relaxed SIMD is behind one there, and the baseline compiler is left out
 * so that the first token already runs optimised code.
 */
export async function withCompilerFlags<T>(compile: () => Promise<T>): Promise<T> {
  const v8 = await import("node:v8");
  v8.setFlagsFromString("--no-liftoff");
  const major = Number(process.versions.node.split(".")[0]);
  if (major < 21) v8.setFlagsFromString("--experimental-wasm-relaxed-simd");
  try {
    return await compile();
  } finally {
    v8.setFlagsFromString("--liftoff");
  }
}

/** Resolves in a later turn of the event loop, without the millisecond that a timer takes. */
export function laterTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
