import type { Device, DeviceBuffer, Launch, Program } from "../device/device.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import type { LatentCache } from "../kernels/common/latent-cache.ts";
import { sampling } from "../kernels/sampling/sampling.ts";
import { type Model, recordHead, recordLayers } from "../models/model.ts";
import type { StepBuffers } from "../models/step-buffers.ts";
import type { StepMemory } from "./step-memory.ts";

/** Logits of chosen rows and what is drawn from them. */
export interface SampleBuffers {
  readonly maxRows: number;
  /** f32 [k, hidden]. */
  readonly gathered: DeviceBuffer;
  /** f32 [k, vocab]. */
  readonly logits: DeviceBuffer;
  /** f32 [k, vocab]. */
  readonly workspace: DeviceBuffer;
  /** i32 [k]. */
  readonly drawn: DeviceBuffer;
}

/** Allocates {@link SampleBuffers} of `maxRows` rows. */
export function allocateSampleBuffers(
  device: Pick<Device, "allocate">,
  { hiddenSize, vocabSize }: ModelConfig,
  maxRows: number,
): SampleBuffers {
  return {
    maxRows,
    gathered: device.allocate(maxRows * hiddenSize * 4, "last hidden state"),
    logits: device.allocate(maxRows * vocabSize * 4, "logits"),
    workspace: device.allocate(maxRows * vocabSize * 4, "sampling workspace"),
    drawn: device.allocate(maxRows * 4, "drawn tokens"),
  };
}

/** What a step is recorded over. */
export interface StepPlan {
  readonly device: Device;
  readonly model: Model;
  readonly caches: readonly LatentCache[];
  readonly memory: StepMemory;
  readonly buffers: StepBuffers;
  readonly attentionWorkspace: DeviceBuffer | null;
  readonly sample: SampleBuffers;
  readonly maxPages: number;
  /** Ids from here on are padding and never drawn. */
  readonly validVocab: number;
}

/** A step of up to `rows` tokens, recorded in three parts, so that logits can be looked at or changed between. */
export interface RecordedStep {
  readonly rows: number;
  /** Embedding and decoder layers. */
  readonly layers: Program;
  /** Chosen rows to logits. */
  readonly head: Program;
  /** Logits to token ids. */
  readonly draw: Program;
  /** All three at once, where nobody looks. */
  readonly whole: Program;
  /** The same over the token ids that the step before drew, a row each; null where no step is begun ahead. */
  readonly ahead: Program | null;
}

/** Records a step of up to `rows` tokens, of which up to `headRows` draw; `runsAhead` where it may be begun before its ids are known. */
export function recordStep(plan: StepPlan, rows: number, headRows: number, runsAhead: boolean): RecordedStep {
  const { device, model, caches, memory, attentionWorkspace, sample, maxPages, validVocab } = plan;
  const inputs = { ...memory.buffers, maxPages };
  const buffers = { ...plan.buffers, maxRows: rows };
  const rowCount = memory.buffers.headCount;
  const layersOf = (ids: DeviceBuffer) => (launch: Launch) =>
    recordLayers(model, { launch, inputs: { ...inputs, ids }, buffers, attentionWorkspace }, caches);
  const layers = layersOf(inputs.ids);
  const head = (launch: Launch) =>
    recordHead(launch, model, {
      ...sample,
      hidden: plan.buffers.hidden,
      hiddenRows: plan.buffers.maxRows,
      rows: memory.buffers.headRows,
      rowCount,
      maxRows: headRows,
      rounded: plan.buffers.rounded,
    });
  const draw = (launch: Launch) =>
    sampling(launch, {
      logits: sample.logits,
      params: memory.buffers.params,
      out: sample.drawn,
      workspace: sample.workspace,
      rowCount,
      maxRows: headRows,
      vocab: model.config.vocabSize,
      validVocab,
    });
  const all = (first: (launch: Launch) => void) => (launch: Launch) => {
    for (const part of [first, head, draw]) part(launch);
  };
  return {
    rows,
    layers: device.record(layers),
    head: device.record(head),
    draw: device.record(draw),
    whole: device.record(all(layers)),
    ahead: runsAhead ? device.record(all(layersOf(sample.drawn))) : null,
  };
}

/** Gives back what a recording holds. */
export function freeStep({ layers, head, draw, whole, ahead }: RecordedStep): void {
  for (const program of [layers, head, draw, whole, ahead]) program?.free();
}
