import { describe, expect, it } from "vitest";
import { toBf16 } from "../base/bf16.ts";
import { UserError } from "../base/errors.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import type { TensorStore } from "../formats/safetensors.ts";
import type { TensorInfo } from "../formats/safetensors-header.ts";
import { WeightSource } from "./weight-source.ts";

interface FakeTensor {
  readonly dtype: TensorInfo["dtype"];
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

const bytesOf = (values: Float32Array | Uint16Array) => new Uint8Array(values.buffer);
const bf16 = (shape: number[], ...values: number[]): FakeTensor => ({
  dtype: "bf16",
  shape,
  bytes: bytesOf(toBf16(Float32Array.from(values))),
});
const f32 = (shape: number[], ...values: number[]): FakeTensor => ({
  dtype: "f32",
  shape,
  bytes: bytesOf(Float32Array.from(values)),
});

/** Tensors in memory, handed out in chunks of 8 bytes. */
function storeOf(tensors: Record<string, FakeTensor>): TensorStore {
  const infos = Object.entries(tensors).map(([name, { dtype, shape, bytes }]): [string, TensorInfo] => [
    name,
    { name, dtype, shape, byteLength: bytes.length, byteOffset: 0 },
  ]);
  return {
    name: "checkpoint",
    tensors: new Map(infos),
    readTensor: async (name) => tensors[name]!.bytes,
    async streamTensor(name, _, consume) {
      const { bytes } = tensors[name]!;
      for (let offset = 0; offset < bytes.length; offset += 8)
        await consume(bytes.slice(offset, offset + 8), offset);
    },
    close: async () => {},
  };
}

class FakeBuffer implements DeviceBuffer {
  freed = false;
  readonly label = "buffer";
  readonly memory: Uint8Array;
  constructor(memory: Uint8Array) {
    this.memory = memory;
  }
  get bytes(): number {
    return this.memory.length;
  }
  slice(byteOffset: number, bytes: number): FakeBuffer {
    return new FakeBuffer(this.memory.subarray(byteOffset, byteOffset + bytes));
  }
  free(): void {
    this.freed = true;
  }
}

const allocate = (bytes: number) => new FakeBuffer(new Uint8Array(bytes).fill(0xff));
const device = {
  write: (buffer: DeviceBuffer, data: ArrayBufferView, offset = 0) =>
    (buffer as FakeBuffer).memory.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset),
} as Device;
const memory = (buffer: DeviceBuffer) => (buffer as FakeBuffer).memory;

describe("WeightSource", () => {
  it("keeps matrices as they are, makes vectors float32 and tells the progress in file bytes", async () => {
    const matrix = bf16([3, 2], 1, 2, 3, 4, 5, 6);
    const source = new WeightSource(storeOf({ matrix, vector: bf16([5], 1, -2, 3, 0.5, 5) }), allocate);
    const loaded = source.matrix("matrix", 3, 2);
    const vector = source.vector("vector", 5);
    expect(loaded).toMatchObject({ dtype: "bf16", rows: 3, columns: 2 });
    expect(source.totalBytes).toBe(12 + 20);
    const progress: number[][] = [];
    await source.load(device, (done, total) => progress.push([done, total]));
    expect(memory(loaded.buffer)).toEqual(matrix.bytes);
    expect(Array.from(new Float32Array(memory(vector).slice().buffer))).toEqual([1, -2, 3, 0.5, 5]);
    expect(progress).toEqual([8, 12, 20, 22].map((done) => [done, 22]));
  });

  it("stacks tensors of one width one after the other", async () => {
    const tensors = { gate: f32([1, 2], 1, 2), up: f32([2, 2], 3, 4, 5, 6) };
    const source = new WeightSource(storeOf(tensors), allocate);
    const stacked = source.stack(
      ["gate", "up"],
      [
        [1, 2],
        [2, 2],
      ],
      "gate and up",
    );
    expect(stacked).toMatchObject({ dtype: "f32", rows: 3, columns: 2 });
    await source.load(device);
    expect(Array.from(new Float32Array(memory(stacked.buffer).buffer))).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("makes one matrix of three sizes: experts=2 rows=3 columns=4", () => {
    const source = new WeightSource(
      storeOf({ experts: f32([2, 3, 4], ...new Array<number>(24).fill(1)) }),
      allocate,
    );
    expect(source.stack(["experts"], [2, 3, 4], "experts")).toMatchObject({ rows: 6, columns: 4 });
  });

  it("names the tensor that is missing, or of another shape or type", () => {
    const odd = { ...f32([2], 1, 2), dtype: "i32" } as const;
    const source = new WeightSource(
      storeOf({ a: bf16([2, 2], 1, 2, 3, 4), b: f32([2, 2], 1, 2, 3, 4), odd }),
      allocate,
    );
    const failures: [() => unknown, string][] = [
      [() => source.matrix("c", 2, 2), "checkpoint: the tensor c is missing"],
      [() => source.matrix("a", 2, 3), "the tensor a has the shape [2, 2], expected [2, 3]"],
      [() => source.vector("a", 4), "the tensor a has the shape [2, 2], expected [4]"],
      [() => source.vector("odd", 2), "the tensor odd is i32, expected bf16, f16 or f32"],
      [() => source.stack(["a", "b"], [2, 2], "ab"), "the tensor b is f32, expected bf16 like a"],
    ];
    for (const [call, message] of failures) {
      expect(call).toThrow(UserError);
      expect(call).toThrow(message);
    }
  });

  it("stops at the signal and gives every buffer back", async () => {
    const source = new WeightSource(storeOf({ a: f32([4], 1, 2, 3, 4) }), allocate);
    const buffer = source.vector("a", 4) as FakeBuffer;
    await expect(source.load(device, undefined, AbortSignal.abort(new Error("stop")))).rejects.toThrow(
      "stop",
    );
    source.free();
    expect([buffer.freed, source.totalBytes]).toEqual([true, 0]);
  });
});
