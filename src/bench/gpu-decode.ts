import { decodeToF32 } from "../base/convert.ts";
import { createRandom } from "../base/random.ts";
import type { Device, DeviceBuffer, Program } from "../device/device.ts";
import { type MlaDecodeSizes, mlaDecodeWorkspaceBytes } from "../kernels/common/mla-partials.ts";
import type { MlaDecodeCudaOptions } from "../kernels/mla-decode/mla-decode.cuda.ts";
import { mlaDecode } from "../kernels/mla-decode/mla-decode.ts";
import { mlaRowReference } from "../kernels/mla-decode/reference.ts";
import { fillRandom, timeRuns } from "./gpu-memory.ts";

const LATENT = 512;
const ROPE = 64;
const WIDTH = LATENT + ROPE;
const PAGE = 64;
const PAGE_BYTES = PAGE * WIDTH * 2;
/** Bytes over which cold calls go round: several times the second-level cache. */
const COLD_BYTES = 300e6;
const MOST_CALLS = 512;
const SOFTMAX_SCALE = 192 ** -0.5;
/** Largest error against float64 that passes, relative to max(absolute, 1/20): 16-bit probabilities and output. */
const TOLERANCE = 2.01 / 128;

/** A shape: every sequence has `length` cached tokens. */
export interface GpuDecodeShape {
  readonly batch: number;
  readonly sQ: number;
  readonly heads: number;
  readonly length: number;
}

/** Its speed, of one call within a graph of many. */
export interface GpuDecodeResult extends GpuDecodeShape {
  /** Inputs from memory: each call of the graph has its own, over more than 256 MB in all. */
  readonly coldMicroseconds: number;
  /** The same inputs again and again. */
  readonly warmMicroseconds: number;
  readonly teraflops: number;
  readonly gigabytesPerSecond: number;
  readonly worstError: number;
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

/** A row, numbered through [batch, sQ, heads], and what it should be. */
interface RowTruth {
  readonly row: number;
  readonly out: Float64Array;
  readonly lse: number;
}

/** A large cache of random pages, in which every shape finds its own. */
export class GpuDecodeBench {
  #truth: { readonly key: string; readonly rows: RowTruth[] } | undefined;

  private constructor(
    readonly device: Device,
    readonly pool: DeviceBuffer,
    readonly q: DeviceBuffer,
    readonly out: DeviceBuffer,
    readonly lse: DeviceBuffer,
  ) {}

  /** Fills `poolBytes` of cache and queries for `rows` rows. */
  static async create(device: Device, poolBytes: number, rows: number): Promise<GpuDecodeBench> {
    const pool = device.allocate(Math.floor(poolBytes / PAGE_BYTES) * PAGE_BYTES, "cache");
    const q = device.allocate(rows * WIDTH * 2, "q");
    const [out, lse] = [device.allocate(rows * LATENT * 2, "out"), device.allocate(rows * 4, "lse")];
    await fillRandom(device, pool, 1, 1);
    await fillRandom(device, q, 2, 1);
    return new GpuDecodeBench(device, pool, q, out, lse);
  }

  /** Checks a shape, then times it `rounds` times cold and warm; medians. Throws RangeError when a result is wrong. */
  async measure(
    shape: GpuDecodeShape,
    rounds: number,
    cuda: MlaDecodeCudaOptions = {},
  ): Promise<GpuDecodeResult> {
    const { flops, bytes } = gpuDecodeCost(shape);
    const calls = Math.max(4, Math.min(MOST_CALLS, Math.ceil(COLD_BYTES / bytes)));
    const held: DeviceBuffer[] = [];
    const tables = this.#makeTables(shape, calls, held);
    const truth = await this.#truthOf(shape, tables[0]!.pages);
    const cold = this.#record(shape, cuda, tables, held);
    const warm = this.#record(
      shape,
      cuda,
      tables.map(() => tables[0]!),
      held,
    );
    try {
      warm.run();
      const worstError = await this.#worstError(truth);
      if (!(worstError <= TOLERANCE)) {
        throw new RangeError(`mla-decode ${JSON.stringify(shape)} is wrong: error ${worstError}`);
      }
      cold.run();
      const perCall = async (program: Program) =>
        ((await timeRuns(program, rounds))[rounds >> 1]! * 1e3) / tables.length;
      const [coldMicroseconds, warmMicroseconds] = [await perCall(cold), await perCall(warm)];
      return {
        ...shape,
        ...{ coldMicroseconds, warmMicroseconds, worstError },
        teraflops: flops / coldMicroseconds / 1e6,
        gigabytesPerSecond: bytes / coldMicroseconds / 1e3,
      };
    } finally {
      for (const one of [cold, warm, ...held]) one.free();
    }
  }

  #keep(held: DeviceBuffer[], data: ArrayBufferView, label: string): DeviceBuffer {
    const buffer = this.device.allocate(data.byteLength, label);
    this.device.write(buffer, data);
    held.push(buffer);
    return buffer;
  }

  /** Block tables of `calls` calls: pages of the pool, spread over it, no page twice in a call. */
  #makeTables({ batch, length }: GpuDecodeShape, calls: number, held: DeviceBuffer[]) {
    const pages = this.pool.bytes / PAGE_BYTES;
    const wanted = batch * Math.ceil(length / PAGE);
    if (wanted > pages) throw new RangeError(`the pool has ${pages} pages, the shape wants ${wanted}`);
    const order = Int32Array.from({ length: pages }, (_, i) => i);
    const random = createRandom(3);
    for (let i = pages - 1; i > 0; i--) {
      const j = random.integer(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    const all = new Int32Array(calls * wanted).map((_, i) => order[i % pages]!);
    const buffer = this.#keep(held, all, "tables");
    return Array.from({ length: calls }, (_, call) => ({
      buffer: buffer.slice(call * wanted * 4, wanted * 4),
      pages: all.subarray(call * wanted, (call + 1) * wanted),
    }));
  }

  #record(
    { batch, sQ, heads, length }: GpuDecodeShape,
    cuda: MlaDecodeCudaOptions,
    tables: readonly { readonly buffer: DeviceBuffer }[],
    held: DeviceBuffer[],
  ): Program {
    const sizes: MlaDecodeSizes = {
      ...{ batch, sQ, heads, latentWidth: LATENT, ropeWidth: ROPE, maxLen: length },
    };
    const cacheSeqlens = this.#keep(held, new Int32Array(batch).fill(length), "lengths");
    const workspaceBytes = cuda.variant === "portable" ? mlaDecodeWorkspaceBytes(sizes) : 4;
    const workspace = this.device.allocate(workspaceBytes, "workspace");
    held.push(workspace);
    const maxPages = Math.ceil(length / PAGE);
    return this.device.record((launch) => {
      for (const { buffer } of tables) {
        mlaDecode(launch, {
          ...{ ...sizes, mask: "causal", blockTable: buffer, maxPages, cacheSeqlens, workspace, cuda },
          ...{ q: this.q, qDtype: "bf16", out: this.out, outDtype: "bf16", lse: this.lse },
          cache: { buffer: this.pool, dtype: "bf16", pageSize: PAGE },
          softmaxScale: SOFTMAX_SCALE,
        });
      }
    });
  }

  async #readBf16(buffer: DeviceBuffer, first: number, count: number): Promise<Float32Array> {
    return decodeToF32(new Uint8Array(await this.device.read(buffer, first * 2, count * 2)), "bf16");
  }

  /** Float64 results of the first and the last row of the last sequence; the last shape's are kept. */
  async #truthOf({ batch, sQ, heads, length }: GpuDecodeShape, pages: Int32Array): Promise<RowTruth[]> {
    const key = [batch, sQ, heads, length].join();
    if (this.#truth?.key === key) return this.#truth.rows;
    const perSequence = Math.ceil(length / PAGE);
    const tokens: Float32Array[] = [];
    for (const page of pages.subarray((batch - 1) * perSequence, batch * perSequence)) {
      const values = await this.#readBf16(this.pool, page * PAGE * WIDTH, PAGE * WIDTH);
      for (let t = 0; t < PAGE; t++) tokens.push(values.subarray(t * WIDTH, (t + 1) * WIDTH));
    }
    const rows: RowTruth[] = [];
    for (const [row, hidden] of [
      [(batch - 1) * sQ * heads, sQ - 1],
      [batch * sQ * heads - 1, 0],
    ] as const) {
      const query = await this.#readBf16(this.q, row * WIDTH, WIDTH);
      const visible = tokens.slice(0, length - hidden);
      const reference = { query, tokens: visible, latentWidth: LATENT, softmaxScale: SOFTMAX_SCALE };
      rows.push({ row, ...mlaRowReference(reference) });
    }
    this.#truth = { key, rows };
    return rows;
  }

  /** Largest error of those rows, relative to max(absolute, a twentieth). */
  async #worstError(truth: readonly RowTruth[]): Promise<number> {
    let worst = 0;
    for (const expected of truth) {
      const out = await this.#readBf16(this.out, expected.row * LATENT, LATENT);
      const [lse] = new Float32Array(await this.device.read(this.lse, expected.row * 4, 4));
      const errorOf = (actual: number, truth: number) =>
        Math.abs(actual - truth) / Math.max(Math.abs(truth), 0.05);
      const errors = Array.from(out, (value, i) => errorOf(value, expected.out[i]!));
      for (const error of [...errors, errorOf(lse!, expected.lse)]) if (!(error <= worst)) worst = error;
    }
    return worst;
  }
}
