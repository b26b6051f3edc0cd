import type { CudaDriver } from "./driver.ts";

const SLOTS = 4;
/** What small reads come back through, two at a time: a step's, and that of a step begun before its caller has it. */
const READ_BYTES = 64 * 2 ** 10;
const READS = 2;
const SLOT_BYTES = 4 * 2 ** 20;
/** CU_EVENT_DISABLE_TIMING: cheaper, and only the order matters. */
const NO_TIMING = 2;

/** A small copy from the device that was enqueued. */
export interface Reading {
  /** CUevent: past once the copy is there. */
  readonly event: bigint;
  /** Its bytes; called once, after that. */
  take(): ArrayBuffer;
}

/**
 * Pinned memory that writes go through: the copy engine reads it while the caller goes on, and a slot is filled again once
 * the copy out of it is done. So a model's weights stream at the speed of the slower of disk and bus, and the inputs of a
 * step cost no wait.
 */
export class StagingRing {
  readonly #driver: CudaDriver;
  readonly #address: bigint;
  readonly #memory: Uint8Array;
  readonly #events: readonly bigint[];
  readonly #used: boolean[] = Array.from({ length: SLOTS }, () => false);
  #next = 0;
  readonly #readEvents: readonly bigint[];
  readonly #isReading: boolean[] = Array.from({ length: READS }, () => false);

  constructor(driver: CudaDriver) {
    this.#driver = driver;
    const bytes = SLOTS * SLOT_BYTES + READS * READ_BYTES;
    this.#address = driver.result("cuMemHostAlloc", bytes, 0);
    this.#memory = new Uint8Array(driver.library.view(this.#address, bytes));
    const events = (length: number) =>
      Array.from({ length }, () => driver.result("cuEventCreate", NO_TIMING));
    this.#events = events(SLOTS);
    this.#readEvents = events(READS);
  }

  /** Copies `data` to the device address `target`, in order with the work of `stream`; `data` is free on return. */
  write(target: bigint, data: Uint8Array, stream: bigint): void {
    for (let at = 0; at < data.length; at += SLOT_BYTES) {
      const part = data.subarray(at, at + SLOT_BYTES);
      const slot = this.#next;
      this.#next = (slot + 1) % SLOTS;
      const event = this.#events[slot] ?? 0n;
      if (this.#used[slot]) this.#driver.call("cuEventSynchronize", event);
      this.#used[slot] = true;
      this.#memory.set(part, slot * SLOT_BYTES);
      const source = this.#address + BigInt(slot * SLOT_BYTES);
      this.#driver.call("cuMemcpyHtoDAsync_v2", target + BigInt(at), source, part.length, stream);
      this.#driver.call("cuEventRecord", event, stream);
    }
  }

  /** Enqueues a small copy from the device. Null when it is too large, or two others are under way. */
  read(source: bigint, bytes: number, stream: bigint): Reading | null {
    const slot = this.#isReading.indexOf(false);
    if (bytes > READ_BYTES || slot < 0) return null;
    const at = SLOTS * SLOT_BYTES + slot * READ_BYTES;
    const event = this.#readEvents[slot] ?? 0n;
    this.#driver.call("cuMemcpyDtoHAsync_v2", this.#address + BigInt(at), source, bytes, stream);
    this.#driver.call("cuEventRecord", event, stream);
    this.#isReading[slot] = true;
    const take = () => {
      this.#isReading[slot] = false;
      return this.#memory.slice(at, at + bytes).buffer;
    };
    return { event, take };
  }

  release(): void {
    for (const event of [...this.#events, ...this.#readEvents]) this.#driver.call("cuEventDestroy_v2", event);
    this.#driver.call("cuMemFreeHost", this.#address);
  }
}
