import { roundUp } from "../base/integers.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import { SAMPLING_PARAMS_BYTES } from "../kernels/sampling/params.ts";

/** Sizes of a step's inputs; a step may use fewer rows. */
export interface StepMemorySizes {
  /** Tokens of a step. */
  readonly rows: number;
  /** Sequences of a step, each with a block table. */
  readonly sequences: number;
  /** Rows that are turned into logits. */
  readonly headRows: number;
  /** Pages of a block table. */
  readonly maxPages: number;
}

const sections = [
  "rowCount",
  "headCount",
  "ids",
  "positions",
  "slots",
  "cacheSeqlens",
  "headRows",
  "params",
  "blockTable",
] as const;
type Section = (typeof sections)[number];

/** Words between sections: 256 bytes, the alignment of every device's bindings. */
const ALIGNMENT = 64;

/** The inputs of a step, i32 side by side in one buffer that is written once per step. The block table is last. */
export class StepMemory {
  readonly buffers: Readonly<Record<Section, DeviceBuffer>>;
  /** What goes to the device with `upload`; sections are views of it. */
  readonly host: Readonly<Record<Section, Int32Array>>;
  readonly #device: Pick<Device, "write">;
  readonly #buffer: DeviceBuffer;
  readonly #words: Int32Array;

  constructor(device: Pick<Device, "allocate" | "write">, sizes: StepMemorySizes) {
    const words: Record<Section, number> = {
      rowCount: 1,
      headCount: 1,
      ids: sizes.rows,
      positions: sizes.rows,
      slots: sizes.rows,
      cacheSeqlens: sizes.sequences,
      headRows: sizes.headRows,
      params: (sizes.headRows * SAMPLING_PARAMS_BYTES) / 4,
      blockTable: sizes.sequences * sizes.maxPages,
    };
    const total = sections.reduce((sum, name) => sum + roundUp(words[name], ALIGNMENT), 0);
    this.#device = device;
    this.#words = new Int32Array(total);
    this.#buffer = device.allocate(total * 4, "step inputs");
    let at = 0;
    const place = <Value>(make: (start: number, length: number) => Value) => {
      at = 0;
      const entries = sections.map((name) => {
        const value = make(at, words[name]);
        at += roundUp(words[name], ALIGNMENT);
        return [name, value] as const;
      });
      return Object.fromEntries(entries) as Record<Section, Value>;
    };
    this.buffers = place((start, length) => this.#buffer.slice(start * 4, length * 4));
    this.host = place((start, length) => this.#words.subarray(start, start + length));
  }

  /** Writes everything up to the first `tableWords` words of the block table to the device. */
  upload(tableWords: number): void {
    const start = this.#words.length - roundUp(this.host.blockTable.length, ALIGNMENT);
    this.#device.write(this.#buffer, this.#words.subarray(0, start + tableWords));
  }

  free(): void {
    this.#buffer.free();
  }
}
