import { LatentCachePool, type LatentCacheShape } from "../cache/latent-cache-pool.ts";
import { allocateTogether, bytesOf } from "../device/allocations.ts";
import type { Device, DeviceBuffer } from "../device/device.ts";
import { mlaDecodeWorkspaceBytes } from "../kernels/common/mla-partials.ts";
import { mlaDecodeWebGpuWorkspaceBytes } from "../kernels/common/mla-partials.webgpu.ts";
import type { Model } from "../models/model.ts";
import { allocateStepBuffers, type StepBuffers, type StepPhase } from "../models/step-buffers.ts";
import { allocateSampleBuffers, type SampleBuffers } from "./recorded-step.ts";
import { StepMemory } from "./step-memory.ts";

/** What decides how much memory a runner takes. */
export interface RunnerSizes {
  readonly cacheDtype: LatentCacheShape["dtype"];
  /** Pages of the cache, for all sequences together. */
  readonly pageCount: number;
  /** Tokens of a page. */
  readonly pageSize: number;
  readonly maxDecodeRows: number;
  readonly maxChunkTokens: number;
  /** Keeps activations in float32 where many rows would be rounded to bf16 (CUDA); default false. */
  readonly isExact?: boolean;
}

/** What steps of one phase are recorded over. */
export interface PhaseMemory {
  readonly memory: StepMemory;
  readonly buffers: StepBuffers;
  readonly attentionWorkspace: DeviceBuffer | null;
}

/** All buffers of a runner. */
export interface RunnerMemory {
  readonly pool: LatentCachePool;
  readonly sample: SampleBuffers;
  readonly phases: Readonly<Record<StepPhase, PhaseMemory>>;
}

/** A device, as far as memory goes. */
type Host = Pick<Device, "kind" | "limits" | "allocate" | "write">;
type ModelSizes = Pick<Model, "config" | "maxLength">;

function allocatePhase(host: Host, model: ModelSizes, sizes: RunnerSizes, phase: StepPhase): PhaseMemory {
  const { config, maxLength: maxLen } = model;
  const rows = phase === "decode" ? sizes.maxDecodeRows : sizes.maxChunkTokens;
  const sequences = phase === "decode" ? rows : 1;
  const { heads, kvLoraRank: latentWidth, qkRopeHeadDim: ropeWidth } = config.attention;
  const workspaceBytes = host.kind === "webgpu" ? mlaDecodeWebGpuWorkspaceBytes : mlaDecodeWorkspaceBytes;
  const workspace = () => workspaceBytes({ batch: rows, sQ: 1, heads, latentWidth, ropeWidth, maxLen });
  const maxPages = Math.ceil(maxLen / sizes.pageSize);
  return {
    memory: new StepMemory(host, { rows, sequences, headRows: sizes.maxDecodeRows, maxPages }),
    buffers: allocateStepBuffers(host, config, phase, rows, sizes.cacheDtype, sizes.isExact),
    attentionWorkspace: phase === "decode" ? host.allocate(workspace(), "attention workspace") : null,
  };
}

/** Allocates the cache and every step's inputs and activations. Throws UserError when the device has no room; nothing stays then. */
export function allocateRunnerMemory(device: Host, model: ModelSizes, sizes: RunnerSizes): RunnerMemory {
  const { kvLoraRank, qkRopeHeadDim } = model.config.attention;
  const { cacheDtype: dtype, pageSize } = sizes;
  const shape = { dtype, kvLoraRank, qkRopeHeadDim, layers: model.config.numLayers, pageSize };
  return allocateTogether(device, (allocate) => {
    const { kind, limits } = device;
    const host: Host = { kind, limits, allocate, write: (...written) => device.write(...written) };
    return {
      pool: new LatentCachePool(host, shape, sizes.pageCount),
      sample: allocateSampleBuffers(host, model.config, sizes.maxDecodeRows),
      phases: {
        decode: allocatePhase(host, model, sizes, "decode"),
        prefill: allocatePhase(host, model, sizes, "prefill"),
      },
    };
  });
}

/** The bytes that {@link allocateRunnerMemory} takes on `device`. */
export function runnerBytes(
  { kind, limits }: Pick<Device, "kind" | "limits">,
  model: ModelSizes,
  sizes: RunnerSizes,
): number {
  return bytesOf((allocate) =>
    allocateRunnerMemory({ kind, limits, allocate, write: () => {} }, model, sizes),
  );
}
