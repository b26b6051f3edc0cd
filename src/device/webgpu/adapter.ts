import { checkOneOf } from "../../base/checks.ts";
import { errorMessage, UserError } from "../../base/errors.ts";

/** Abilities that kernels choose variants by. Each can be switched off, so that any variant can be tried on any adapter. */
export const webGpuFeatures = [
  "shader-f16",
  "subgroups",
  "subgroup-matrix",
  "timestamp-query",
  "raised-limits",
] as const;
/** One of {@link webGpuFeatures}. */
export type WebGpuFeature = (typeof webGpuFeatures)[number];

/** Which adapter is opened, and how. */
export interface WebGpuAdapterOptions {
  /** Features to do without, of {@link webGpuFeatures}; `raised-limits` leaves WebGPU's default limits. */
  readonly disableFeatures?: readonly string[];
  /** Whether an adapter that computes on the processor (lavapipe, SwiftShader) will do; default true. */
  readonly allowSoftware?: boolean;
  /** Default: the browser's `navigator.gpu`, or Dawn in Node. */
  readonly gpu?: GPU;
}

/** Toggles without which Dawn hides f16 and the subgroup matrices of NVIDIA's Vulkan driver, and rounds timestamps. */
const dawnOptions = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia,use_vulkan_memory_model",
  "disable-dawn-features=timestamp_quantization",
];

async function loadDawn(): Promise<GPU> {
  // No bundler follows a name that it cannot read: a browser has a WebGPU of its own.
  const name = "webgpu";
  const dawn = (await import(/* @vite-ignore */ name).catch((cause: unknown) => {
    throw new UserError(
      `WebGPU in Node needs the optional package webgpu (Dawn), which does not load: ${errorMessage(cause)}.`,
      { cause },
    );
  })) as { create(options: string[]): GPU };
  return dawn.create(dawnOptions);
}

/** One for the process: it must outlive every device made of it. */
let dawnGpu: Promise<GPU> | undefined;

const isNode = () => typeof process !== "undefined" && process.versions?.node !== undefined;

async function findGpu(): Promise<GPU> {
  const own = typeof navigator === "undefined" ? undefined : navigator.gpu;
  if (own !== undefined) return own;
  if (isNode()) {
    dawnGpu ??= loadDawn();
    return dawnGpu;
  }
  throw new UserError("This browser has no WebGPU; a current Chrome, Edge, Safari or Firefox has.");
}

function noAdapter(): UserError {
  if (!isNode()) return new UserError("This browser finds no GPU that WebGPU can use.");
  const needs: Partial<Record<NodeJS.Platform, string>> = {
    linux: "the Vulkan loader (libvulkan.so.1) and a GPU driver with Vulkan 1.1",
    darwin: "a GPU with Metal",
    win32: "a GPU driver with Direct3D 12",
  };
  const wanted = needs[process.platform] ?? "a GPU driver";
  return new UserError(`WebGPU finds no adapter here; it needs ${wanted}.`);
}

/** Whether an adapter computes on the processor: Mesa's, Google's or Windows' (WARP). */
export function isSoftware({ info }: Pick<GPUAdapter, "info">): boolean {
  const names = [info.vendor, info.architecture, info.device, info.description].join(" ");
  return (
    info.isFallbackAdapter || /llvmpipe|swiftshader|lavapipe|softpipe|\bwarp\b|basic render/i.test(names)
  );
}

/** What people call the adapter. */
export function adapterName({ info }: Pick<GPUAdapter, "info">): string {
  const name = info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(" ");
  return name === "" ? "unnamed adapter" : name;
}

/**
 * Why no GPU can be here, in a sentence; null where one may be. Looking for an adapter takes Dawn a fifth of a second and makes it write
 * warnings, so where Linux shows no GPU it is not asked.
 */
export function gpuObstacle(): string | null {
  if (!isNode() || process.platform !== "linux") return null;
  const { existsSync, readdirSync } = process.getBuiltinModule("node:fs");
  if (["/dev/nvidiactl", "/dev/dxg"].some((device) => existsSync(device))) return null;
  const nodes = existsSync("/dev/dri") ? readdirSync("/dev/dri") : [];
  if (nodes.some((name) => name.startsWith("renderD"))) return null;
  return "there is no GPU here (no /dev/dri/renderD*); --device webgpu takes an adapter on the processor all the same";
}

/** WebGPU's names of the features that this project calls by shorter ones. */
const apiNames: Partial<Record<WebGpuFeature, string>> = {
  "subgroup-matrix": "chromium-experimental-subgroup-matrix",
};

/** Whether an adapter has the subgroup matrices that the kernels are written for: f16 × f16 → f32, 16 × 16 × 16. */
function hasWantedMatrices(adapter: GPUAdapter): boolean {
  type Config = { componentType: string; resultComponentType: string; M: number; N: number; K: number };
  const { subgroupMatrixConfigs } = adapter.info as { subgroupMatrixConfigs?: Iterable<Config> };
  return [...(subgroupMatrixConfigs ?? [])].some(
    ({ componentType, resultComponentType, M, N, K }) =>
      componentType === "f16" && resultComponentType === "f32" && M === 16 && N === 16 && K === 16,
  );
}

/** An adapter, and which of the wanted features it has. */
export interface FoundAdapter {
  readonly adapter: GPUAdapter;
  readonly features: ReadonlySet<WebGpuFeature>;
}

/**
 * The best adapter here. Throws UserError that says what is missing, RangeError for a feature to disable that this build
 * does not know.
 */
export async function findAdapter(options: WebGpuAdapterOptions = {}): Promise<FoundAdapter> {
  const disabled = new Set(
    (options.disableFeatures ?? []).map((name) => checkOneOf("disableFeatures", name, webGpuFeatures)),
  );
  const obstacle = options.allowSoftware === false && options.gpu === undefined ? gpuObstacle() : null;
  if (obstacle !== null) throw new UserError(obstacle);
  const gpu = options.gpu ?? (await findGpu());
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) throw noAdapter();
  if (options.allowSoftware === false && isSoftware(adapter)) {
    throw new UserError(
      `its only adapter computes on the processor (${adapterName(adapter)}); --device webgpu takes it all the same`,
    );
  }
  const has = (name: WebGpuFeature) => {
    if (name === "raised-limits") return true;
    if (name === "subgroup-matrix" && !hasWantedMatrices(adapter)) return false;
    return adapter.features.has(apiNames[name] ?? name);
  };
  return {
    adapter,
    features: new Set(webGpuFeatures.filter((name) => has(name) && !disabled.has(name))),
  };
}

const raisedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxStorageBuffersPerShaderStage",
] as const;

/** Opens the adapter with the features found, and the highest limits unless they are to stay as WebGPU guarantees them. */
export function requestDevice({ adapter, features }: FoundAdapter): Promise<GPUDevice> {
  const requiredFeatures = [...features]
    .filter((name) => name !== "raised-limits")
    .map((name) => (apiNames[name] ?? name) as GPUFeatureName);
  const requiredLimits = features.has("raised-limits")
    ? Object.fromEntries(raisedLimits.map((name) => [name, adapter.limits[name]]))
    : {};
  return adapter.requestDevice({ requiredFeatures, requiredLimits });
}
