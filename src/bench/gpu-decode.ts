import { createRandom } from "../base/random.ts";
import type { Device, DeviceBuffer, Program } from "../device/device.ts";
import { type MlaDecodeSizes, mlaDecodeWorkspaceBytes } from "../kernels/common/mla-partials.ts";
import type { MlaDecodeCudaOptions } from "../kernels/mla-decode/mla-decode.cuda.ts";
import { mlaDecode } from "../kernels/mla-decode/mla-decode.ts";
import { COLD_BYTES, type GpuTiming, medianMicroseconds } from "./gpu-case.ts";
import { type RowTruth, readBf16, readTruth, worstRowError } from "./gpu-decode-truth.ts";
import { fillRandom } from "./gpu-memory.ts";

const LATENT = 512;
const ROPE = 64;
const WIDTH = LATENT + ROPE;
const PAGE = 64;
const PAGE_BYTES = PAGE * WIDTH * 2;
const MOST_CALLS = 512;
const SOFTMAX_SCALE = 192 ** -0.5;
/**
 * Largest error against float64 that passes, relative to max(absolute, 1/20): the relative tolerance of the public suite. Probabilities (but for
 * few rows) and the output are of 16 bits.
 */
const TOLERANCE = 2.01 / 128;

/** A shape: every sequence has `length` cached tokens. */
export interface GpuDecodeShape {
  readonly batch: number;
  readonly sQ: number;
  readonly heads: number;
  readonly length: number;
}

/** FLOPs and bytes of a call with 16-bit q, cache and out. */
export function gpuDecodeCost({ batch, sQ, heads, length }: GpuDecodeShape): {
  flops: number;
  bytes: number;
} {
  const rows = batch * sQ * heads;
  return {
    flops: 2 * rows * (LATENT + WIDTH) * length,
    bytes: 2 * WIDTH * batch * length + 2 * rows * (LATENT + WIDTH),
  };
}

/** What goes back when a shape is done. */
interface Held {
  free(): void;
}

/** What one call reads. */
interface Call {
  readonly table: DeviceBuffer;
  readonly pages: Int32Array;
  readonly q: DeviceBuffer;
  /** Bytes before it in the queries' pool. */
  readonly qOffset: number;
}

/** A large cache of random pages, in which every shape finds its own. */
export class GpuDecodeBench {
  private constructor(
    readonly device: Device,
    readonly pool: DeviceBuffer,
    readonly q: DeviceBuffer,
    readonly out: DeviceBuffer,
    readonly lse: DeviceBuffer,
  ) {}

  /** Fills `poolBytes` of cache, and queries for `rows` rows. Throws UserError when the device has no room. */
  static async create(device: Device, poolBytes: number, rows: number): Promise<GpuDecodeBench> {
    const pool = device.allocate(Math.floor(poolBytes / PAGE_BYTES) * PAGE_BYTES, "cache");
    const q = device.allocate(rows * WIDTH * 2, "q");
    const [out, lse] = [device.allocate(rows * LATENT * 2, "out"), device.allocate(rows * 4, "lse")];
    await fillRandom(device, pool, 1, 1);
    await fillRandom(device, q, 2, 1);
    return new GpuDecodeBench(device, pool, q, out, lse);
  }

  /**
   * Checks a shape, cold and warm, then times both `rounds` times; medians. Throws RangeError when a result is wrong or the
   * shape does not fit the cache.
   */
  async measure(shape: GpuDecodeShape, rounds: number, cuda: MlaDecodeCudaOptions = {}): Promise<GpuTiming> {
    const held: Held[] = [];
    try {
      const calls = this.#makeCalls(shape, held);
      // Both end with the call that is compared with float64.
      const last = calls.at(-1)!;
      const cold = this.#record(shape, cuda, calls, held);
      const warm = this.#record(shape, cuda, new Array(calls.length).fill(last), held);
      const truth = await this.#truthOf(shape, last);
      const worstError = Math.max(
        await this.#check(shape, cold, truth),
        await this.#check(shape, warm, truth),
      );
      return {
        coldMicroseconds: await medianMicroseconds(cold, calls.length, rounds),
        warmMicroseconds: await medianMicroseconds(warm, calls.length, rounds),
        worstError,
      };
    } finally {
      for (const one of held.reverse()) one.free();
    }
  }

  /** Gives all memory back. */
  free(): void {
    for (const buffer of [this.pool, this.q, this.out, this.lse]) buffer.free();
  }

  #keep(held: Held[], data: ArrayBufferView, label: string): DeviceBuffer {
    const buffer = this.device.allocate(data.byteLength, label);
    held.push(buffer);
    this.device.write(buffer, data);
    return buffer;
  }

  /** Calls with pages spread over the cache, no page twice in a call, and queries spread over theirs. */
  #makeCalls(shape: GpuDecodeShape, held: Held[]): Call[] {
    const { batch, sQ, heads, length } = shape;
    const count = Math.max(4, Math.min(MOST_CALLS, Math.ceil(COLD_BYTES / gpuDecodeCost(shape).bytes)));
    const pages = this.pool.bytes / PAGE_BYTES;
    const wanted = batch * Math.ceil(length / PAGE);
    if (wanted > pages) throw new RangeError(`the pool has ${pages} pages, the shape wants ${wanted}`);
    const order = createRandom(3).permutation(pages);
    const all = new Int32Array(count * wanted).map((_, i) => order[i % pages]!);
    const buffer = this.#keep(held, all, "tables");
    const qBytes = batch * sQ * heads * WIDTH * 2;
    const queries = Math.floor(this.q.bytes / qBytes);
    return Array.from({ length: count }, (_, call) => ({
      table: buffer.slice(call * wanted * 4, wanted * 4),
      pages: all.subarray(call * wanted, (call + 1) * wanted),
      q: this.q.slice((call % queries) * qBytes, qBytes),
      qOffset: (call % queries) * qBytes,
    }));
  }

  #record(
    { batch, sQ, heads, length }: GpuDecodeShape,
    cuda: MlaDecodeCudaOptions,
    calls: readonly Call[],
    held: Held[],
  ): Program {
    const sizes: MlaDecodeSizes = {
      ...{ batch, sQ, heads, latentWidth: LATENT, ropeWidth: ROPE, maxLen: length },
    };
    const cacheSeqlens = this.#keep(held, new Int32Array(batch).fill(length), "lengths");
    const workspace = this.device.allocate(mlaDecodeWorkspaceBytes(sizes), "workspace");
    held.push(workspace);
    const maxPages = Math.ceil(length / PAGE);
    const program = this.device.record((launch) => {
      for (const { table: blockTable, q } of calls) {
        mlaDecode(launch, {
          ...{ ...sizes, mask: "causal", blockTable, maxPages, cacheSeqlens, workspace, cuda },
          ...{ q, qDtype: "bf16", out: this.out, outDtype: "bf16", lse: this.lse },
          cache: { buffer: this.pool, dtype: "bf16", pageSize: PAGE },
          softmaxScale: SOFTMAX_SCALE,
        });
      }
    });
    held.push(program);
    return program;
  }

  /** Float64 results of the first and the last row of a call's last sequence. */
  #truthOf({ batch, sQ, heads, length }: GpuDecodeShape, { pages, qOffset }: Call): Promise<RowTruth[]> {
    const perSequence = Math.ceil(length / PAGE);
    const rowOf = (row: number, visible: number) => ({
      ...{ row, visible, queryOffset: qOffset + row * WIDTH * 2 },
    });
    const rows = [rowOf((batch - 1) * sQ * heads, length - sQ + 1), rowOf(batch * sQ * heads - 1, length)];
    return readTruth(this.device, this.q, rows, {
      ...{ cache: this.pool, pages: pages.subarray((batch - 1) * perSequence), pageSize: PAGE },
      ...{ latentWidth: LATENT, ropeWidth: ROPE, softmaxScale: SOFTMAX_SCALE },
    });
  }

  /** Runs a program over an output of NaN; the worst error of those rows. Throws RangeError when it is too large. */
  async #check(shape: GpuDecodeShape, program: Program, truth: readonly RowTruth[]): Promise<number> {
    const { device, out, lse } = this;
    for (const { row } of truth) {
      device.write(out, new Uint8Array(LATENT * 2).fill(0xff), row * LATENT * 2);
      device.write(lse, new Uint8Array(4).fill(0xff), row * 4);
    }
    program.run();
    let worst = 0;
    for (const expected of truth) {
      const values = await readBf16(device, out, expected.row * LATENT * 2, LATENT);
      const [sum = Number.NaN] = new Float32Array(await device.read(lse, expected.row * 4, 4));
      const error = worstRowError(values, sum, expected);
      if (!(error <= worst)) worst = error;
    }
    if (worst <= TOLERANCE) return worst;
    throw new RangeError(
      `mla-decode ${JSON.stringify(shape)} is not timed because its results are wrong: error ${worst}`,
    );
  }
}
