import { afterEach, describe, expect, it } from "vitest";
import { UserError } from "../../base/errors.ts";
import type { Device, KernelSource } from "../device.ts";
import { openDevice } from "../open.ts";

const open: Device[] = [];

async function opened(options: Parameters<typeof openDevice>[0]): Promise<Device> {
  const device = await openDevice(options);
  open.push(device);
  return device;
}

const rmsNormSource: KernelSource = {
  name: "rms-norm",
  buffers: ["x", "weight", "out", "rowCount"],
  scalars: [
    ["width", "i32"],
    ["epsilon", "f32"],
  ],
  cpu: "rmsNorm",
};

afterEach(async () => {
  await Promise.all(open.splice(0).map((device) => device.close()));
});

describe("CpuDevice", () => {
  it.each([1, 2, 3])(
    "threads=%i: 500 runs of 300 launches each over 64 rows give what one launch gives",
    async (threads) => {
      const device = await opened({ threads });
      const rows = 64;
      const x = device.allocate(rows * 16, "x");
      const weight = device.allocate(16, "weight");
      const rowCount = device.allocate(4, "rowCount");
      device.write(
        x,
        new Float32Array(rows * 4).map((_, i) => Math.sin(i)),
      );
      device.write(weight, new Float32Array(4).fill(1));
      device.write(rowCount, new Int32Array([rows]));
      const program = device.record((launch) => {
        for (let i = 0; i < 300; i++) launch(rmsNormSource, rows, [x, weight, x, rowCount], [4, 0]);
      });
      for (let i = 0; i < 500; i++) program.run();
      const out = new Float32Array(await device.read(x, 0, rows * 16));
      for (let row = 0; row < rows; row++) {
        const squares = out.subarray(row * 4, row * 4 + 4).reduce((sum, v) => sum + v * v, 0);
        expect(squares / 4).toBeCloseTo(1, 5);
      }
      expect((await program.profile()).length).toBe(300);
    },
  );

  it.each([2, 3])("threads=%i: workers that fell asleep between runs take part again", async (threads) => {
    const device = await opened({ threads });
    const rows = 8;
    const x = device.allocate(rows * 16, "x");
    const weight = device.allocate(16, "weight");
    const rowCount = device.allocate(4, "rowCount");
    device.write(weight, new Float32Array(4).fill(1));
    device.write(rowCount, new Int32Array([rows]));
    const program = device.record((launch) => {
      for (let i = 0; i < 3; i++) launch(rmsNormSource, rows, [x, weight, x, rowCount], [4, 0]);
    });
    for (let run = 1; run <= 4; run++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      device.write(x, new Float32Array(rows * 4).fill(run));
      program.run();
      await program.idle();
      const out = new Float32Array(await device.read(x, 0, rows * 16));
      expect(out.every((value) => Math.abs(value - 1) < 1e-6)).toBe(true);
    }
  });

  it("poison fills fresh and reused memory with NaN", async () => {
    const device = await opened({ threads: 1, poison: true });
    const first = device.allocate(64, "a");
    device.write(first, new Float32Array(16));
    first.free();
    const values = new Float32Array(await device.read(device.allocate(64, "b"), 0, 64));
    expect(values.every(Number.isNaN)).toBe(true);
  });

  it("counts what is used and its peak", async () => {
    const device = await opened({ threads: 1 });
    const buffer = device.allocate(1000, "a");
    expect(device.memory).toEqual({ usedBytes: 1024, peakBytes: 1024 });
    buffer.slice(0, 10).free();
    expect(device.memory.usedBytes).toBe(1024);
    buffer.free();
    expect(device.memory).toEqual({ usedBytes: 0, peakBytes: 1024 });
  });

  it("refuses what does not fit, with the numbers", async () => {
    const device = await opened({ threads: 1 });
    expect(() => device.allocate(5 * 2 ** 30, "weights")).toThrow(UserError);
    expect(() => device.allocate(5 * 2 ** 30, "weights")).toThrow(/weights \(5120 MiB\).*of its 40\d\d MiB/);
    expect(() => device.allocate(-1, "weights")).toThrow(RangeError);
  });

  it("refuses accesses outside a buffer and buffers of another device", async () => {
    const [device, other] = [await opened({ threads: 1 }), await opened({ threads: 1 })];
    const buffer = device.allocate(16, "x");
    expect(() => device.write(buffer, new Uint8Array(17))).toThrow(/x: bytes 0…17/);
    expect(() => buffer.slice(8, 9)).toThrow(RangeError);
    await expect(device.read(buffer, -1, 4)).rejects.toThrow(RangeError);
    expect(() => other.write(buffer, new Uint8Array(1))).toThrow(TypeError);
  });

  it("refuses launches that do not match their kernel", async () => {
    const device = await opened({ threads: 1 });
    const unknown = { ...rmsNormSource, cpu: "nothing" };
    expect(() => device.record((launch) => launch(unknown, 1, []))).toThrow(/no CPU kernel nothing/);
    expect(() => device.record((launch) => launch(rmsNormSource, 1, []))).toThrow(/4 buffers and 2 scalars/);
  });

  it.each([1, 2])(
    "threads=%i: a kernel that traps is an error, not a hang, and a new device works",
    async (threads) => {
      const device = await opened({ threads });
      const buffer = device.allocate(64, "x");
      device.write(buffer, new Int32Array([1_000_000]));
      const width = 2 ** 30 - 4;
      const program = device.record((launch) => {
        launch(rmsNormSource, 64, [buffer, buffer, buffer, buffer], [width, 0]);
      });
      expect(() => program.run()).toThrow(UserError);
      expect(() => program.run()).toThrow(UserError);
      const fresh = await opened({ threads });
      expect(fresh.allocate(16, "x").bytes).toBe(16);
    },
  );

  it("a closed device says so", async () => {
    const device = await openDevice({ threads: 2 });
    await device.close();
    await device.close();
    expect(() => device.allocate(16, "x")).toThrow(/closed/);
  });

  it("openDevice refuses an unknown kind and absurd thread counts", async () => {
    await expect(openDevice({ kind: "tpu" })).rejects.toThrow(/device/);
    await expect(openDevice({ threads: 0 })).rejects.toThrow(RangeError);
    await expect(openDevice({ threads: 1.5 })).rejects.toThrow(TypeError);
  });
});
