import { describe, expect, it } from "vitest";
import { UserError } from "../../base/errors.ts";
import { openDevice, parseDevice } from "../open.ts";
import { gpuObstacle } from "../webgpu/adapter.ts";
import { CublasLt } from "./cublas.ts";
import { cublasFolders, openCublasLibrary } from "./cublas-library.ts";
import { CudaDevice, listCudaGpus } from "./cuda-device.ts";
import { CudaDriver, CudaError } from "./driver.ts";
import { chooseGpu, type Gpu } from "./gpu.ts";
import { type CudaLaunch, LaunchArena } from "./launch-arena.ts";
import { loadDriverLibrary, type NativeFunction, type NativeLibrary } from "./library.ts";

interface Fake {
  readonly status?: Readonly<Record<string, number>>;
  readonly absent?: string;
  /** What a call writes into its first parameter. */
  readonly results?: Readonly<Record<string, number>>;
}

/** A driver that notes its calls; addresses in it count from 0x1000. */
function fakeLibrary({ status = {}, absent = "", results = {} }: Fake = {}) {
  const calls: { name: string; values: Parameters<NativeFunction> }[] = [];
  const views: DataView[] = [];
  const library: NativeLibrary = {
    bind: (name) => {
      if (name === absent) throw new Error(`Cannot find function '${name}'`);
      return (...values) => {
        calls.push({ name, values });
        const [out] = values;
        const result = results[name] ?? 0;
        if (out instanceof BigUint64Array) out[0] = BigInt(result);
        else if (out instanceof Int32Array) out[0] = result;
        if (name === "cuGetErrorName") (values[1] as BigUint64Array)[0] = 1n;
        if (name === "cuGetErrorString") (values[1] as BigUint64Array)[0] = 2n;
        return status[name] ?? 0;
      };
    },
    allocate: (bytes) => {
      views.push(new DataView(new ArrayBuffer(bytes)));
      return { address: 0x1010n, view: views.at(-1)! };
    },
    release: () => {},
    view: (_, bytes) => new ArrayBuffer(bytes),
    open: () => library,
    text: (address) => (address === 1n ? "CUDA_ERROR_NO_DEVICE" : "no CUDA-capable device is detected"),
  };
  return { library, calls, views };
}

describe("what is missing is said in one sentence", () => {
  it("the system", async () => {
    await expect(loadDriverLibrary("darwin")).rejects.toThrow(
      /^CUDA runs on Linux and Windows, not on darwin\.$/,
    );
  });

  it("a symbol of the driver", () => {
    const { library } = fakeLibrary({ absent: "cuLaunchKernelEx" });
    expect(() => new CudaDriver(library)).toThrow(/too old: it has no cuLaunchKernelEx; install version 525/);
  });

  it("a device, in the driver's own words", async () => {
    const { library } = fakeLibrary({ status: { cuInit: 100 } });
    const listed = listCudaGpus(library);
    await expect(listed).rejects.toThrow(UserError);
    await expect(listed).rejects.toThrow(
      "The NVIDIA driver failed in cuInit: CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected).",
    );
  });

  it("GPUs at all, a GPU of that index, a GPU that is new enough", async () => {
    const gpu: Gpu = {
      ordinal: 0,
      name: "Old",
      memoryBytes: 1,
      multiprocessors: 1,
      capability: 75,
      sharedBytes: 1,
    };
    await expect(listCudaGpus(fakeLibrary().library)).rejects.toThrow(/sees no GPU/);
    expect(() => chooseGpu([gpu], 1)).toThrow("there is no GPU 1; the driver sees 0: Old");
    expect(() => chooseGpu([gpu], 0)).toThrow(/Old has compute capability 7\.5; .* 8\.0 \(Ampere\)/);
    expect(() => chooseGpu([gpu])).toThrow(/Old has compute capability 7\.5/);
    const newer = { ...gpu, name: "New", capability: 90 };
    expect([chooseGpu([gpu, newer]).name, chooseGpu([newer, newer, gpu], 1).name]).toEqual(["New", "New"]);
  });
});

describe("CudaDriver", () => {
  it("unfinished work is no failure, failed work is", () => {
    const busy = new CudaDriver(fakeLibrary({ status: { cuStreamQuery: 600 } }).library);
    expect(busy.isDone(1n)).toBe(false);
    const broken = new CudaDriver(fakeLibrary({ status: { cuStreamQuery: 700 } }).library);
    expect(() => broken.isDone(1n)).toThrow(CudaError);
    expect(new CudaDriver(fakeLibrary().library).isDone(1n)).toBe(true);
  });
});

describe("cuBLASLt", () => {
  it("is looked for in the loader's path, the toolkits and Python's packages; what is missing is said in one sentence", () => {
    const tried: string[] = [];
    const open = (file: string) => {
      tried.push(file);
      throw new Error("cannot open shared object file");
    };
    expect(() => openCublasLibrary({ open }, {})).toThrow(
      /no cuBLASLt \(libcublasLt\.so\.13 or .* set FLASHMLA_CUBLASLT/,
    );
    expect(tried.slice(0, 2)).toEqual(["libcublasLt.so.13", "libcublasLt.so.12"]);
    expect(() => openCublasLibrary({ open }, { FLASHMLA_CUBLASLT: "/x" })).toThrow(
      /FLASHMLA_CUBLASLT names \/x/,
    );
    expect(cublasFolders({ CUDA_HOME: "/home/cuda" })[0]).toBe("/home/cuda/lib64");
  });

  it("gets W as the transposed left operand, x as the right one, and one plan a shape", () => {
    const { library, calls } = fakeLibrary({ results: { cublasLtCreate: 7, cublasLtMatmulDescCreate: 8 } });
    const found = library.bind;
    const blas = new CublasLt({
      ...library,
      bind: (name, parameters) => {
        const call = found(name, parameters);
        if (name !== "cublasLtMatmulAlgoGetHeuristic") return call;
        return (...values) => {
          (values[9] as Int32Array)[0] = 1;
          return call(...values);
        };
      },
    });
    const shape = { rows: 64, inputs: 256, outputs: 512, inputType: "bf16", outType: "f32" } as const;
    const addresses = { x: 1n, weight: 2n, out: 3n, workspace: 4n };
    blas.enqueue({ ...shape, mode: "accumulate", scale: 0.5 }, addresses, 0x55n);
    blas.enqueue({ ...shape, mode: "accumulate", scale: 0.5 }, addresses, 0x55n);
    const layouts = calls.filter(({ name }) => name === "cublasLtMatrixLayoutCreate");
    expect(layouts.map(({ values }) => values.slice(1))).toEqual([
      [14, 256, 512, 256],
      [14, 256, 64, 256],
      [0, 512, 64, 512],
    ]);
    const { values } = calls.filter(({ name }) => name === "cublasLtMatmul").at(-1)!;
    expect([values[0], values[1], values[3], values[5], values[8], values[15]]).toEqual([
      7n,
      8n,
      2n,
      1n,
      3n,
      0x55n,
    ]);
    expect([values[2], values[7]]).toEqual([Float32Array.of(0.5), Float32Array.of(1)]);
  });
});

describe("LaunchArena", () => {
  const launch: CudaLaunch = {
    source: {
      name: "test",
      buffers: ["a", "b"],
      scalars: [
        ["n", "i32"],
        ["x", "f32"],
      ],
    },
    entry: {
      module: "test.cubin",
      function: "test",
      blockSize: 384,
      sharedBytes: 200_000,
      cluster: 8,
      scratchBytes: 64,
      counters: 1,
      tensorMaps: [{ buffer: 1, rows: 640, columns: 576, boxRows: 64, boxColumns: 64 }],
    },
    function: 0xf00n,
    grid: 24,
    addresses: [0xa000n, 0xb000n],
    scalars: [-7, 1],
    overlaps: true,
  };

  const shared = { scratch: 0xc000n, counters: 0xd000n };

  it("lays parameters, configuration and cluster out as cuda.h declares them", () => {
    const { library, calls, views } = fakeLibrary();
    new LaunchArena(new CudaDriver(library)).launch(launch, shared, 0x5555n);
    const call = calls.find(({ name }) => name === "cuLaunchKernelEx");
    const [config, kernel, addresses, extra] = call?.values ?? [];
    expect([kernel, extra]).toEqual([0xf00n, null]);
    const base = 0x1080n;
    const view = new DataView(views[0]!.buffer, Number(base - 0x1010n));
    const u32 = (address: bigint, count: number) =>
      Array.from({ length: count }, (_, i) => view.getUint32(Number(address - base) + 4 * i, true));
    const u64 = (address: bigint) => view.getBigUint64(Number(address - base), true);
    expect(u32(config as bigint, 7)).toEqual([24, 1, 1, 384, 1, 1, 200_000]);
    expect(u64((config as bigint) + 32n)).toBe(0x5555n);
    expect(u32((config as bigint) + 48n, 1)).toEqual([2]);
    const attribute = u64((config as bigint) + 40n);
    expect(u32(attribute, 5)).toEqual([4, 0, 8, 1, 1]);
    expect(u32(attribute + 72n, 3)).toEqual([6, 0, 1]);
    const parameters = Array.from({ length: 7 }, (_, i) => u64((addresses as bigint) + BigInt(8 * i)));
    expect(parameters.map((address) => address - base)).toEqual([0n, 128n, 136n, 144n, 152n, 160n, 164n]);
    expect(parameters.slice(1, 5).map(u64)).toEqual([0xa000n, 0xb000n, 0xc000n, 0xd000n]);
    expect(view.getInt32(160, true)).toBe(-7);
    expect(view.getFloat32(164, true)).toBe(1);
  });

  it("lays joined launches out as one struct: counters, their number, then each one's addresses, scalars and waits", () => {
    const { library, calls, views } = fakeLibrary();
    const { source, addresses, scalars } = launch;
    const parts = [-1, 0].map((waitsFor) => ({ source, addresses, bytes: [8, 8], scalars, waitsFor }));
    new LaunchArena(new CudaDriver(library)).launch({ ...launch, parts }, shared, 0n);
    const [, , at] = calls.find(({ name }) => name === "cuLaunchKernelEx")?.values ?? [];
    const view = new DataView(views[0]!.buffer, 0x1080 - 0x1010);
    expect(view.getBigUint64(Number((at as bigint) - 0x1080n), true)).toBe(0x1080n);
    expect(view.getBigUint64(0, true)).toBe(0xd000n);
    expect([8, 12].map((i) => view.getInt32(i, true))).toEqual([2, 0]);
    [16, 48].forEach((from, i) => {
      expect([0, 8].map((place) => view.getBigUint64(from + place, true))).toEqual([0xa000n, 0xb000n]);
      expect([view.getInt32(from + 16, true), view.getFloat32(from + 20, true)]).toEqual([-7, 1]);
      expect([24, 28].map((place) => view.getInt32(from + place, true))).toEqual([i - 1, 1 - i]);
    });
  });

  it("describes a tensor map to the driver", () => {
    const { library, calls } = fakeLibrary();
    new LaunchArena(new CudaDriver(library)).launch(launch, shared, 0n);
    const values = calls.find(({ name }) => name === "cuTensorMapEncodeTiled")?.values.slice(0, 9);
    expect(values).toEqual([
      0x1080n,
      1,
      2,
      0xb000n,
      BigUint64Array.of(576n, 640n),
      BigUint64Array.of(1152n),
      Uint32Array.of(64, 64),
      Uint32Array.of(1, 1),
      0,
    ]);
  });

  it("describes a tensor map of several boxes a copy in three dimensions", () => {
    const { library, calls } = fakeLibrary();
    const [map] = launch.entry.tensorMaps!;
    const entry = { ...launch.entry, tensorMaps: [{ ...map!, boxes: 3 }] };
    new LaunchArena(new CudaDriver(library)).launch({ ...launch, entry }, shared, 0n);
    const values = calls.find(({ name }) => name === "cuTensorMapEncodeTiled")?.values.slice(2, 8);
    expect(values).toEqual([
      3,
      0xb000n,
      BigUint64Array.of(64n, 640n, 9n),
      BigUint64Array.of(1152n, 128n),
      Uint32Array.of(64, 64, 3),
      Uint32Array.of(1, 1, 1),
    ]);
  });
});

describe("CudaDevice", () => {
  it("gives the context back when it cannot be opened to the end", async () => {
    const { library, calls } = fakeLibrary({
      status: { cuMemHostAlloc: 2 },
      results: { cuDeviceGetCount: 1, cuDeviceGetAttribute: 9 },
    });
    await expect(CudaDevice.open({ library })).rejects.toThrow(/failed in cuMemHostAlloc/);
    const names = calls.map(({ name }) => name);
    expect(names).toContain("cuDevicePrimaryCtxRetain");
    expect(names.at(-1)).toBe("cuDevicePrimaryCtxRelease_v2");
  });
});

describe("openDevice", () => {
  it("takes a GPU's index with the kind, and names the kinds when it is something else", async () => {
    expect(parseDevice("cuda:1")).toEqual({ kind: "cuda", gpu: 1 });
    expect(parseDevice("cpu")).toEqual({ kind: "cpu" });
    for (const text of ["cuda:", "cuda:x", "cuda:-1", "cuda:1000", "cpu:0", "webgpu:1", ""])
      expect(() => parseDevice(text)).toThrow(/device must be one of cuda, webgpu, cpu, got/);
    await expect(openDevice({ kind: "gpu" })).rejects.toThrow(/one of cuda, webgpu, cpu, got "gpu"/);
  });

  it.skipIf(gpuObstacle() === null)(
    "names the reason for every device that it passes over, and falls back to the CPU",
    async () => {
      const passed: [string, string][] = [];
      const device = await openDevice({
        threads: 1,
        onPassedOver: (kind, reason) => passed.push([kind, reason]),
      });
      expect(device.kind).toBe("cpu");
      expect(passed.map(([kind]) => kind)).toEqual(["cuda", "webgpu"]);
      expect(passed[0]![1]).toMatch(/NVIDIA|koffi|CUDA kernels/);
      expect(passed[1]![1]).toMatch(/^there is no GPU here .* --device webgpu takes/);
      await device.close();
    },
  );
});
