import type { Thread, ThreadStart } from "./platform.ts";
import type { WasmVariant } from "./wasm-module.ts";

export type { Thread, ThreadStart } from "./platform.ts";

/** The worker's whole code, as in platform.ts; the data comes as the first message. */
const workerSource = `
onmessage = ({ data: { module, memory, names, control, statusOffset, scratch } }) => {
  const words = new Int32Array(memory.buffer, control, 64);
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  const base = instance.exports.table.grow(names.length);
  names.forEach((name, i) => instance.exports.table.set(base + i, instance.exports[name]));
  postMessage("ready");
  try {
    instance.exports.workerLoop(control, 0, scratch);
  } catch (error) {
    Atomics.store(words, statusOffset / 4, 2);
  }
};
`;

/**
 * Processors that the page leaves: it draws on one itself, and threads that wait for one another lose more by one that is kept
 * from running than they gain (docs/log.md).
 */
export async function processorCount(): Promise<number> {
  return Math.max(1, (navigator.hardwareConcurrency || 2) - 1);
}

/** Why there can be no second thread here; null where there can. */
export function threadObstacle(): string | null {
  if (!globalThis.crossOriginIsolated) {
    return "the page is not cross-origin isolated: its server has to send Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp";
  }
  // A page's own thread must not block, which is how threads wait for each other.
  if (typeof document !== "undefined")
    return "a page may not wait for threads; open the device in a Web Worker";
  return null;
}

/** Starts a worker thread; resolves when it is about to wait for work. */
export async function startThread(start: ThreadStart): Promise<Thread> {
  const url = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
  try {
    const worker = new Worker(url);
    await new Promise<void>((resolve, reject) => {
      worker.onmessage = () => resolve();
      worker.onerror = ({ message }) => reject(new Error(message || "the worker did not start"));
      worker.postMessage(start);
    });
    return { terminate: async () => worker.terminate() };
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** A build of the kernels, which a bundle carries deflated and in base 64. */
export async function readKernels(variant: WasmVariant): Promise<Uint8Array<ArrayBuffer>> {
  const { default: text } = await (variant === "relaxed"
    ? import("../../../wasm/kernels-relaxed.wasm.js")
    : import("../../../wasm/kernels-simd.wasm.js"));
  const deflated = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Browsers take no flags. */
export function withCompilerFlags<T>(compile: () => Promise<T>): Promise<T> {
  return compile();
}

/** Resolves in a later turn of the event loop; nested timers would be 4 ms late. */
export function laterTurn(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
