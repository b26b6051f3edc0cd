import { expect, it } from "vitest";
import { compileErrors, matrixEnables, nullWebGpuDevice } from "../../../tests/fixtures/null-webgpu.ts";
import type { DeviceBuffer, DeviceLimits, KernelSource, Launch } from "../../device/device.ts";
import { assemble } from "../../device/webgpu/wgsl.ts";
import { enqueueMatrixProduct, hasMatrixUnits } from "../common/projection.matrix.webgpu.ts";
import { chooseLayout, layoutRows, layoutWeightRows } from "../common/projection-layouts.webgpu.ts";

const device = await nullWebGpuDevice();

const roomy = { workgroupBytes: 49152, invocations: 1024, bindingBytes: 2 ** 31 };
const webgpu = { ...roomy, storageBuffers: 16, bufferBytes: 2 ** 31, subgroupSizes: [32, 32] as const };
const features = new Set(["subgroups", "shader-f16", "subgroup-matrix"]);
const limits = { features, webgpu } as unknown as DeviceLimits;

/** What a product launches on an adapter with subgroup matrices. */
function launchesOf(product: Partial<Parameters<typeof enqueueMatrixProduct>[1]>): KernelSource[] {
  const kernels: KernelSource[] = [];
  const launch = Object.assign((kernel: KernelSource) => kernels.push(kernel), {
    target: { kind: "webgpu", limits },
  }) as unknown as Launch;
  const buffer = { slice: () => buffer, bytes: 2 ** 31 } as unknown as DeviceBuffer;
  const weight = { buffer, dtype: "bf16", rows: 2048, columns: 512 } as const;
  const shared = { x: buffer, out: buffer, rowCount: buffer, mode: "store" } as const;
  enqueueMatrixProduct(launch, { weight, maxRows: 2048, ...shared, ...product });
  return kernels;
}

const rows = (maxRows: number, outputs: number, isGated = false) => {
  const layout = chooseLayout({ rows: outputs }, isGated, maxRows);
  return [layoutRows(layout), layoutWeightRows(layout)];
};

it("takes the matrix units where their workgroups have room", () => {
  expect(hasMatrixUnits({ kind: "webgpu", limits })).toBe(true);
  const narrow = { ...limits, webgpu: { ...webgpu, workgroupBytes: 16384 } } as unknown as DeviceLimits;
  expect(hasMatrixUnits({ kind: "webgpu", limits: narrow })).toBe(false);
});

it("subgroup-matrix: tiles by the number of rows and outputs", () => {
  expect(rows(2048, 6144)).toEqual([128, 128]);
  expect(rows(2048, 576)).toEqual([128, 64]);
  expect(rows(2048, 1536)).toEqual([128, 64]);
  expect(rows(32, 6144)).toEqual([64, 64]);
  expect(rows(2048, 6144, true)).toEqual([128, 128]);
});

it.runIf(device !== null)("subgroup-matrix: every layout compiles, whole and at its edges", async () => {
  const buffer = {} as DeviceBuffer;
  const weight = (rows: number, columns: number, dtype: "bf16" | "f16" = "bf16") => ({
    ...{ buffer: { slice: () => buffer, bytes: 2 ** 31 } as unknown as DeviceBuffer, dtype, rows, columns },
  });
  const products = [32, 128, 300, 2048].flatMap((maxRows) => [
    { maxRows, weight: weight(6144, 2048) },
    { maxRows, weight: weight(584, 1000, "f16"), mode: "accumulate" as const },
    { maxRows, weight: weight(6144, 512), second: weight(6144, 512) },
    { maxRows, weight: weight(200, 40), second: weight(200, 40) },
  ]);
  const kernels = products.flatMap(launchesOf);
  expect(kernels.length).toBeGreaterThan(products.length);
  for (const { webgpu: entry, scalars, buffers } of kernels) {
    const code = assemble(entry!.code, {
      ...{ constants: { IN_PLACE: false, ...entry!.constants }, enables: matrixEnables },
      ...{ scalars, scalarBinding: buffers.length },
    });
    expect(await compileErrors(device!, code)).toEqual([]);
  }
});
