import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevicesOf } from "../../../tests/fixtures/devices.ts";
import type { Device, KernelSource, WgslSource } from "../device.ts";
import { openDevice } from "../open.ts";
import { assemble } from "./wgsl.ts";

const wgsl = (text: string): WgslSource => ({ name: "test.wgsl", includes: [], text });

/** out[i] = x[i] + offset for the `scalars.grid` words; in place where x is out. */
const add: KernelSource = {
  name: "add",
  buffers: ["x", "out"],
  scalars: [["offset", "i32"]],
  webgpu: {
    code: wgsl(`
#if !IN_PLACE
@group(0) @binding(0) var<storage, read> x: array<i32>;
#endif
@group(0) @binding(1) var<storage, read_write> out: array<i32>;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) group: vec3u) {
  let i = group.y * scalars.gridWidth + group.x;
  if (i >= scalars.grid) { return; }
#if IN_PLACE
  out[i] += scalars.offset;
#else
  out[i] = x[i] + scalars.offset;
#endif
}`),
  },
};

async function words(device: Device, buffer: ReturnType<Device["allocate"]>): Promise<number[]> {
  return [...new Int32Array(await device.read(buffer, 0, buffer.bytes))];
}

describe.each(testDevicesOf("webgpu"))("device, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  it("counts memory, poisons it, and reads back from any byte", async () => {
    const before = device.memory.usedBytes;
    const buffer = device.allocate(1000, "some");
    expect(device.memory.usedBytes - before).toBe(1000);
    expect([...new Uint8Array(await device.read(buffer, 998, 2))]).toEqual([255, 255]);
    device.write(buffer, new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]), 8);
    expect([...new Uint8Array(await device.read(buffer, 9, 3))]).toEqual([2, 3, 4]);
    expect(() => device.write(buffer, new Uint8Array(3), 8)).toThrow("whole words");
    buffer.free();
    buffer.free();
    expect(device.memory.usedBytes).toBe(before);
  });

  it("writes the odd last bytes of a buffer", async () => {
    const buffer = device.allocate(6, "odd");
    device.write(buffer, new Uint8Array([1, 2, 3, 4, 5, 6]));
    expect([...new Uint8Array(await device.read(buffer, 0, 6))]).toEqual([1, 2, 3, 4, 5, 6]);
    buffer.free();
  });

  it("replays a recorded step over changed inputs, in order with writes", async () => {
    const [x, out] = [device.allocate(12, "x"), device.allocate(12, "out")];
    const program = device.record((launch) => {
      launch(add, 3, [x, out], [10]);
      launch(add, 3, [out, out], [100]);
      launch(add, 0, [out, out], [7]);
    });
    for (const start of [1, 2, 3]) {
      device.write(x, new Int32Array([start, start, start]));
      program.run();
      device.write(x, new Int32Array([900, 900, 900]));
      expect(await words(device, out)).toEqual(Array(3).fill(start + 110));
    }
    expect((await program.profile()).map(({ name }) => name)).toEqual(["add", "add"]);
    expect(await program.time()).toBeGreaterThanOrEqual(0);
    program.free();
    expect(() => program.run()).toThrow("freed");
  });

  it("runs 100 dispatches in order, and may be freed at once", async () => {
    const out = device.allocate(8, "out");
    device.write(out, new Int32Array([1, 2]));
    const program = device.record((launch) => {
      for (let i = 0; i < 100; i++) launch(add, 2, [out, out], [i]);
    });
    program.run();
    program.run();
    program.free();
    expect(await words(device, out)).toEqual([1 + 2 * 4950, 2 + 2 * 4950]);
    out.free();
  });

  it("reads and writes slices of one buffer in one launch; those that overlap are named", async () => {
    const buffer = device.allocate(1024, "both");
    device.write(buffer, new Int32Array(256).fill(5));
    const program = device.record((launch) => {
      launch(add, 2, [buffer.slice(0, 8), buffer.slice(512, 8)], [1]);
    });
    program.run();
    await program.idle();
    expect([...new Int32Array(await device.read(buffer, 512, 12))]).toEqual([6, 6, 5]);
    const askew = () => device.record((launch) => launch(add, 1, [buffer.slice(4, 8), buffer], [1]));
    expect(askew).toThrow("multiple of");
    program.free();
    buffer.free();
  });

  it("grid=70000: more workgroups than one dimension holds", async () => {
    const out = device.allocate(70001 * 4, "out");
    device.write(out, new Int32Array(70001));
    const program = device.record((launch) => launch(add, 70000, [out, out], [3]));
    program.run();
    const result = new Int32Array(await device.read(out, 0, out.bytes));
    expect(result.subarray(0, 70000).every((value) => value === 3)).toBe(true);
    expect(result[70000]).toBe(0);
    program.free();
    out.free();
  });

  it("refuses what does not fit with the numbers, foreign buffers and kernels without WGSL", async () => {
    expect(() => device.allocate(2 ** 45, "everything")).toThrow(/everything takes .* MiB at most/);
    const other = await openDevice({ kind: "cpu", threads: 1 });
    const foreign = other.allocate(8, "foreign");
    expect(() => device.write(foreign, new Uint8Array(4))).toThrow("of this device");
    await other.close();
    const { webgpu: _, ...bare } = add;
    const x = device.allocate(8, "x");
    expect(() => device.record((launch) => launch(bare, 1, [x, x], [1]))).toThrow("no webgpu kernel");
    expect(() => device.record((launch) => launch(add, 1, [x], [1]))).toThrow("2 buffers");
    x.free();
  });

  it("reports WGSL that does not compile at the latest when the step is waited for, and goes on", async () => {
    const x = device.allocate(8, "x");
    const wrong = { ...add, name: "wrong", webgpu: { code: wgsl("fn main() { nonsense }") } };
    const attempt = async () => {
      const program = device.record((launch) => launch(wrong, 1, [x, x], [1]));
      program.run();
      await program.idle();
    };
    await expect(attempt()).rejects.toThrow("WebGPU: ");
    expect(await words(device, x)).toEqual([-1, -1]);
    x.free();
  });
});

describe.each(testDevicesOf("webgpu").slice(0, 1))("device, $name", ({ open }) => {
  it("has the limits of WebGPU's defaults, so that a binding of more than 128 MiB is refused", async () => {
    const device = await open();
    expect(device.limits.webgpu).toMatchObject({
      ...{ workgroupBytes: 16384, invocations: 256, storageBuffers: 8, bindingBytes: 2 ** 27 },
    });
    const large = device.allocate(2 ** 27 + 256, "large");
    const record = () => device.record((launch) => launch(add, 1, [large, large], [1]));
    expect(record).toThrow("large has 128 MiB, this adapter binds 128 MiB at most");
    await device.close();
    await device.close();
    expect(() => device.allocate(4, "late")).toThrow("closed");
  });

  it("a lost device says so at every call, and another one opens", async () => {
    const device = await open();
    const buffer = device.allocate(8, "x");
    (device as unknown as { gpu: GPUDevice }).gpu.destroy();
    await expect(device.read(buffer, 0, 8)).rejects.toThrow("was lost");
    expect(() => device.allocate(8, "y")).toThrow("was lost");
    await device.close();
    const next = await open();
    expect(await words(next, next.allocate(4, "z"))).toEqual([-1]);
    await next.close();
  });
});

it("refuses a feature to disable that there is not", async () => {
  await expect(openDevice({ kind: "webgpu", disableFeatures: ["f32"] })).rejects.toThrow("disableFeatures");
});

it("says what is missing where there is no adapter", async () => {
  const { WebGpuDevice } = await import("./webgpu-device.ts");
  const gpu = { requestAdapter: async () => null } as unknown as GPU;
  await expect(WebGpuDevice.open({ gpu })).rejects.toThrow("no adapter");
});

describe("assemble", () => {
  const specialisation = { constants: { A: 2, B: false }, enables: ["f16"], scalars: [], scalarBinding: 1 };
  const lines = (text: string, includes: WgslSource[] = []) =>
    assemble({ name: "test.wgsl", includes, text }, specialisation).split("\n");

  it("puts extensions first, then constants, then each file once", () => {
    const common = wgsl("fn common() {}");
    const between = { name: "between", includes: [common], text: "fn between() {}" };
    expect(lines("fn main() {}", [common, between])).toEqual([
      "enable f16;",
      "const A = 2;",
      "const B = false;",
      "struct Scalars { grid: u32, gridWidth: u32 }",
      "@group(0) @binding(1) var<uniform> scalars: Scalars;",
      "const SCRATCH = 2;",
      "fn common() {}",
      "fn between() {}",
      "fn main() {}",
    ]);
  });

  it("keeps the lines whose conditions hold", () => {
    const text =
      "#if A == 2\none\n#if B\ntwo\n#else\nthree\n#endif\n#else\nfour\n#endif\n#if A != 2\nfive\n#endif";
    expect(lines(text).slice(6)).toEqual(["one", "three"]);
    expect(() => lines("#if C\n#endif")).toThrow("test.wgsl: #if C: no constant");
    expect(() => lines("#if A")).toThrow("without #endif");
  });

  it("lays loops out, with the number and the next one in place of the name", () => {
    const text = "#for i A\n#for j A / 1\nlet x$i_$j = y$j+1;\n#endfor\n#if $i == A\nnever\n#endif\n#endfor";
    const laidOut = [0, 1].flatMap((i) => [`let x${i}_0 = y1;`, `let x${i}_1 = y2;`]);
    expect(lines(text).slice(6)).toEqual(laidOut);
    expect(() => lines("#for i A\none")).toThrow("test.wgsl: #for i without #endfor");
    expect(() => lines("#for i C\n#endfor")).toThrow("test.wgsl: #for … C: not a whole number");
  });
});
