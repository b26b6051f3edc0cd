import { DeviceLostError, errorMessage, UserError } from "../../base/errors.ts";

/** GPUBufferUsage and GPUMapMode; Node has no globals of that name. */
export const USAGE = {
  mapRead: 1,
  copySrc: 4,
  copyDst: 8,
  uniform: 64,
  storage: 128,
  queryResolve: 512,
} as const;
const MAP_READ = 1;

/**
 * The submissions of one GPUDevice: commands are gathered and go out as one, before anything that has to come after them
 * and at the latest when control returns to the event loop. The first failure is kept and thrown at the next chance.
 */
export class CommandQueue {
  readonly gpu: GPUDevice;
  #pending: GPUCommandBuffer[] = [];
  #afterSubmit = new Set<() => void>();
  #failure: Error | null = null;
  #isEnding = false;
  readonly #staging: GPUBuffer[] = [];
  readonly #scopes = new Set<Promise<void>>();

  constructor(gpu: GPUDevice) {
    this.gpu = gpu;
    gpu.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.fail(new Error(`WebGPU: ${event.error.message}`));
    });
    void gpu.lost.then(({ message }) => {
      if (this.#isEnding) return;
      this.#failure = new DeviceLostError(
        `The WebGPU device was lost (${message || "no reason given"}); open it anew: what it held is gone.`,
      );
    });
  }

  /** Keeps `error` for the next check. */
  fail(error: Error): void {
    this.#failure ??= error;
  }

  /** Throws the first failure, once; the loss of the device every time. */
  check(): void {
    const failure = this.#failure;
    if (failure === null) return;
    if (!(failure instanceof DeviceLostError)) this.#failure = null;
    throw failure;
  }

  /** Makes `make`'s out-of-memory failure `describe`'s error. */
  guardMemory<Value>(make: () => Value, describe: (cause: string) => Error): Value {
    this.gpu.pushErrorScope("out-of-memory");
    const value = make();
    const scope = this.gpu.popErrorScope().then(
      (error) => {
        if (error !== null) this.fail(describe(error.message));
      },
      () => {},
    );
    this.#scopes.add(scope);
    void scope.then(() => this.#scopes.delete(scope));
    return value;
  }

  /** Adds commands to the next submission; `afterSubmit` is called once it is out. */
  enqueue(commands: GPUCommandBuffer, afterSubmit?: () => void): void {
    if (this.#pending.length === 0) queueMicrotask(() => this.flush());
    this.#pending.push(commands);
    if (afterSubmit !== undefined) this.#afterSubmit.add(afterSubmit);
  }

  /** Submits what is gathered. */
  flush(): void {
    if (this.#pending.length === 0) return;
    const commands = this.#pending;
    this.#pending = [];
    this.gpu.queue.submit(commands);
    const calls = this.#afterSubmit;
    this.#afterSubmit = new Set();
    for (const call of calls) call();
  }

  write(buffer: GPUBuffer, byteOffset: number, data: Uint8Array<ArrayBuffer>): void {
    this.flush();
    this.gpu.queue.writeBuffer(buffer, byteOffset, data);
  }

  /** Copies `bytes` bytes, a multiple of 4, from `byteOffset`, another one, once all commands before are done. */
  async read(buffer: GPUBuffer, byteOffset: number, bytes: number): Promise<ArrayBuffer> {
    this.check();
    const staging = this.#takeStaging(bytes);
    const encoder = this.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, byteOffset, staging, 0, bytes);
    this.#pending.push(encoder.finish());
    this.flush();
    await this.#settle(staging.mapAsync(MAP_READ, 0, bytes));
    const copy = staging.getMappedRange(0, bytes).slice(0);
    staging.unmap();
    this.#staging.push(staging);
    return copy;
  }

  /** A small buffer is kept for the next read of its size or less. */
  #takeStaging(bytes: number): GPUBuffer {
    const at = this.#staging.findIndex(({ size }) => size >= bytes && size <= Math.max(4 * bytes, 4096));
    const kept = at < 0 ? undefined : this.#staging.splice(at, 1)[0];
    if (this.#staging.length > 8) this.#staging.shift()?.destroy();
    if (kept !== undefined) return kept;
    const size = Math.max(256, bytes);
    return this.guardMemory(
      () => this.gpu.createBuffer({ label: "read-back", size, usage: USAGE.mapRead | USAGE.copyDst }),
      () => new UserError(`The WebGPU device has no room to read ${bytes} bytes back.`),
    );
  }

  /** Resolves when everything submitted is done; rejects when it failed. */
  async idle(): Promise<void> {
    this.check();
    this.flush();
    await this.#settle(this.gpu.queue.onSubmittedWorkDone());
  }

  /** Waits for `work` and for reports of failures; a failure goes before what `work` makes of it. */
  async #settle(work: Promise<unknown>): Promise<void> {
    let failure: unknown = null;
    await work.catch((error: unknown) => {
      failure = error;
    });
    if (this.#scopes.size > 0) await Promise.all(this.#scopes);
    // The loss of a device is told after what it breaks.
    if (failure !== null)
      await Promise.race([this.gpu.lost, new Promise((resolve) => setTimeout(resolve, 50))]);
    this.check();
    if (failure !== null) throw new Error(`WebGPU: ${errorMessage(failure)}`, { cause: failure });
  }

  /** Destroys the device; its end is no loss then. */
  end(): void {
    this.#isEnding = true;
    this.#pending = [];
    this.gpu.destroy();
  }
}
