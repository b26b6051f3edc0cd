import { checkInteger } from "../base/checks.ts";
import { nextPowerOfTwo } from "../base/integers.ts";
import type { LatentCachePool } from "../cache/latent-cache-pool.ts";
import type { Device } from "../device/device.ts";
import { packSamplingParams, type SamplingParams } from "../kernels/sampling/params.ts";
import type { Model } from "../models/model.ts";
import type { StepPhase } from "../models/step-buffers.ts";
import { freeStep, type RecordedStep, recordStep, type SampleBuffers } from "./recorded-step.ts";
import { isStepAhead, MOST_ROWS_AHEAD, rowsAhead, type StepAhead } from "./run-ahead.ts";
import { allocateRunnerMemory, type PhaseMemory, type RunnerSizes } from "./runner-memory.ts";
import type { AdjustLogits, DecodeRow, PrefillChunk, Runner } from "./runner-types.ts";
import type { StepMemory } from "./step-memory.ts";

/** Sizes that a runner is made for. */
export interface ModelRunnerOptions extends RunnerSizes {
  readonly device: Device;
  readonly model: Model;
  /** Ids from here on are padding and never drawn. */
  readonly validVocab: number;
  /**
   * Begins the next decode step of a few sequences before the tokens of this one are back, which hides what the host takes between two
   * steps; a step that turns out not to be wanted is computed for nothing. Default: on GPUs.
   */
  readonly runsAhead?: boolean;
}

interface Draw {
  /** Row of the step. */
  readonly row: number;
  readonly sampling: SamplingParams;
}

/** Everything of one phase: its memory, and a recording for each number of rows that came up. */
interface Phase extends PhaseMemory {
  readonly steps: Map<number, RecordedStep>;
}

/** Runs a model's recorded steps over a paged latent cache of its own. */
export class ModelRunner implements Runner {
  readonly pageSize: number;
  readonly pageCount: number;
  readonly maxDecodeRows: number;
  readonly maxChunkTokens: number;
  readonly maxContext: number;
  readonly vocabSize: number;
  readonly pool: LatentCachePool;
  readonly #device: Device;
  readonly #model: Model;
  readonly #validVocab: number;
  readonly #runsAhead: boolean;
  readonly #maxPages: number;
  readonly #sample: SampleBuffers;
  readonly #phases: Readonly<Record<StepPhase, Phase>>;
  #copies: Promise<void> = Promise.resolve();
  #ahead: StepAhead | null = null;

  /** Allocates cache and activations. Throws UserError when the device has no room, RangeError for sizes below 1. */
  constructor(options: ModelRunnerOptions) {
    const { device, model, pageCount, pageSize } = options;
    this.#device = device;
    this.#model = model;
    this.#validVocab = options.validVocab;
    this.#runsAhead = options.runsAhead ?? device.kind !== "cpu";
    this.pageSize = pageSize;
    this.pageCount = pageCount;
    this.maxDecodeRows = checkInteger("maxDecodeRows", options.maxDecodeRows, { min: 1 });
    this.maxChunkTokens = checkInteger("maxChunkTokens", options.maxChunkTokens, { min: 1 });
    this.maxContext = Math.min(model.maxLength, pageCount * pageSize);
    this.vocabSize = model.config.vocabSize;
    this.#maxPages = Math.ceil(model.maxLength / pageSize);
    const { pool, sample, phases } = allocateRunnerMemory(device, model, options);
    this.pool = pool;
    this.#sample = sample;
    this.#phases = {
      decode: { ...phases.decode, steps: new Map() },
      prefill: { ...phases.prefill, steps: new Map() },
    };
  }

  /** The recording for the least power of two of rows that holds `rows`. */
  #step(kind: StepPhase, rows: number): RecordedStep {
    const phase = this.#phases[kind];
    const bucket = Math.min(nextPowerOfTwo(rows), phase.buffers.maxRows);
    const known = phase.steps.get(bucket);
    if (known) return known;
    const { dtype, pageSize } = this.pool.shape;
    const caches = Array.from({ length: this.pool.shape.layers }, (_, layer) => {
      return { buffer: this.pool.layer(layer), dtype, pageSize, pages: this.pageCount };
    });
    const shared = { device: this.#device, model: this.#model, caches, sample: this.#sample };
    const plan = { ...shared, ...phase, maxPages: this.#maxPages, validVocab: this.#validVocab };
    const isDecode = kind === "decode";
    const headRows = isDecode ? bucket : this.maxDecodeRows;
    const runsAhead = isDecode && this.#runsAhead && bucket <= MOST_ROWS_AHEAD;
    const step = recordStep(plan, bucket, headRows, runsAhead);
    phase.steps.set(bucket, step);
    return step;
  }

  async decode(rows: readonly DecodeRow[], adjust?: ReadonlyMap<number, AdjustLogits>): Promise<Int32Array> {
    checkInteger("rows.length", rows.length, { min: 1, max: this.maxDecodeRows });
    await this.#settleCopies();
    const ahead = this.#ahead;
    this.#ahead = null;
    const isPlain = adjust === undefined || adjust.size === 0;
    const isUnderWay = isPlain && ahead !== null && isStepAhead(ahead, rows);
    const drawn = isUnderWay ? ahead.drawn : this.#decodeRows(rows, adjust);
    const next = isPlain && this.#runsAhead ? rowsAhead(rows, this) : null;
    const begun = next === null ? null : this.#runAhead(next);
    this.#ahead = begun;
    const tokens = await drawn;
    if (begun !== null) begun.tokenIds = tokens;
    return tokens;
  }

  #decodeRows(
    rows: readonly DecodeRow[],
    adjust: ReadonlyMap<number, AdjustLogits> | undefined,
  ): Promise<Int32Array> {
    const { memory } = this.#phases.decode;
    const draws = this.#enterRows(rows);
    const step = this.#step("decode", rows.length);
    const hooks = draws.map(({ row }) => adjust?.get(row));
    return this.#run(memory, step, rows.length, rows.length * this.#maxPages, draws, hooks).then((drawn) => {
      const tokens = new Int32Array(rows.length).fill(-1);
      draws.forEach(({ row }, i) => {
        tokens[row] = drawn[i]!;
      });
      return tokens;
    });
  }

  /** Submits the step after the one just submitted. Its rows all draw, so their tokens' ids are those that were drawn, in order. */
  #runAhead(rows: readonly DecodeRow[]): StepAhead {
    const { memory } = this.#phases.decode;
    const draws = this.#enterRows(rows);
    const { ahead } = this.#step("decode", rows.length);
    this.#upload(memory, rows.length, rows.length * this.#maxPages, draws);
    ahead!.run();
    const drawn = this.#readDrawn(rows.length);
    // Who takes it hears of a failure; where nobody does, the device tells the next call.
    drawn.catch(() => {});
    return { rows, tokenIds: null, drawn };
  }

  #enterRows(rows: readonly DecodeRow[]): Draw[] {
    const { host } = this.#phases.decode.memory;
    const draws: Draw[] = [];
    rows.forEach(({ tokenId, position, slot, pages, sampling }, row) => {
      host.ids[row] = tokenId;
      host.positions[row] = this.#checkPosition(position, pages);
      host.slots[row] = slot;
      host.cacheSeqlens[row] = position + 1;
      host.blockTable.set(pages, row * this.#maxPages);
      if (sampling !== null) draws.push({ row, sampling });
    });
    return draws;
  }

  async prefill(chunk: PrefillChunk, adjust?: AdjustLogits): Promise<number | null> {
    await this.#settleCopies();
    const { memory } = this.#phases.prefill;
    const { step, pages } = this.#enterChunk(chunk);
    const count = chunk.tokenIds.length;
    const draws = chunk.sampling === null ? [] : [{ row: count - 1, sampling: chunk.sampling }];
    const drawn = await this.#run(memory, step, count, pages, draws, [adjust]);
    return drawn[0] ?? null;
  }

  /** The logits, f32 [vocab] each, of `rows` of a chunk that is run like a prefill's. */
  async score(chunk: PrefillChunk, rows: readonly number[]): Promise<Float32Array[]> {
    await this.#settleCopies();
    const { memory } = this.#phases.prefill;
    const { step, pages } = this.#enterChunk(chunk);
    memory.host.rowCount[0] = chunk.tokenIds.length;
    memory.upload(pages);
    step.layers.run();
    const logits: Float32Array[] = [];
    for (let first = 0; first < rows.length; first += this.maxDecodeRows) {
      const part = rows.slice(first, first + this.maxDecodeRows);
      memory.host.headCount[0] = part.length;
      memory.host.headRows.set(part);
      memory.upload(pages);
      step.head.run();
      for (const [index] of part.entries()) logits.push(await this.#readLogits(index));
    }
    return logits;
  }

  #enterChunk({ tokenIds, position, slots, pages }: PrefillChunk): { step: RecordedStep; pages: number } {
    const count = checkInteger("tokenIds.length", tokenIds.length, { min: 1, max: this.maxChunkTokens });
    this.#checkPosition(position + count - 1, pages);
    const { host } = this.#phases.prefill.memory;
    for (let row = 0; row < count; row++) {
      host.ids[row] = tokenIds[row]!;
      host.positions[row] = position + row;
      host.slots[row] = slots[row]!;
    }
    host.cacheSeqlens[0] = position + count;
    host.blockTable.set(pages);
    return { step: this.#step("prefill", count), pages: pages.length };
  }

  async #run(
    memory: StepMemory,
    step: RecordedStep,
    rows: number,
    tableWords: number,
    draws: readonly Draw[],
    hooks: readonly (AdjustLogits | undefined)[],
  ): Promise<Int32Array> {
    this.#upload(memory, rows, tableWords, draws);
    if (draws.length === 0) {
      step.layers.run();
      await step.layers.idle();
      return new Int32Array(0);
    }
    if (hooks.every((hook) => hook === undefined)) {
      step.whole.run();
    } else {
      step.layers.run();
      step.head.run();
      for (const [index, hook] of hooks.entries()) if (hook) await this.#adjust(index, hook);
      step.draw.run();
    }
    return this.#readDrawn(draws.length);
  }

  #upload(memory: StepMemory, rows: number, tableWords: number, draws: readonly Draw[]): void {
    memory.host.rowCount[0] = rows;
    memory.host.headCount[0] = draws.length;
    draws.forEach(({ row }, index) => {
      memory.host.headRows[index] = row;
    });
    const params = packSamplingParams(draws.map(({ sampling }) => sampling));
    memory.host.params.set(new Int32Array(params.buffer, 0, params.length / 4));
    memory.upload(tableWords);
  }

  async #readDrawn(count: number): Promise<Int32Array> {
    return new Int32Array(await this.#device.read(this.#sample.drawn, 0, count * 4));
  }

  async #readLogits(index: number): Promise<Float32Array> {
    const bytes = this.vocabSize * 4;
    return new Float32Array(await this.#device.read(this.#sample.logits, index * bytes, bytes));
  }

  async #adjust(index: number, hook: AdjustLogits): Promise<void> {
    const logits = await this.#readLogits(index);
    hook(logits);
    this.#device.write(this.#sample.logits, logits, index * logits.byteLength);
  }

  #checkPosition(position: number, pages: readonly number[]): number {
    const held = Math.min(this.maxContext, pages.length * this.pageSize);
    checkInteger("pages.length", pages.length, { min: 1, max: this.#maxPages });
    return checkInteger("position", position, { min: 0, max: held - 1 });
  }

  copyPage(from: number, to: number): void {
    checkInteger("from", from, { min: 0, max: this.pageCount - 1 });
    checkInteger("to", to, { min: 0, max: this.pageCount - 1 });
    this.#copies = this.#copies.then(async () => {
      for (let index = 0; index < this.pool.shape.layers; index++) {
        const layer = this.pool.layer(index);
        const bytes = layer.bytes / this.pageCount;
        const page = await this.#device.read(layer, from * bytes, bytes);
        this.#device.write(layer, new Uint8Array(page), to * bytes);
      }
    });
  }

  /** Waits for copies under way; one that failed fails the next call only. */
  async #settleCopies(): Promise<void> {
    const copies = this.#copies;
    this.#copies = Promise.resolve();
    await copies;
  }

  /** Gives cache, activations and recordings back; the model stays. */
  free(): void {
    for (const { memory, buffers, attentionWorkspace, steps } of Object.values(this.#phases)) {
      for (const step of steps.values()) freeStep(step);
      memory.free();
      buffers.free();
      attentionWorkspace?.free();
    }
    const { gathered, logits, workspace, drawn } = this.#sample;
    for (const buffer of [gathered, logits, workspace, drawn]) buffer.free();
    this.pool.free();
  }
}
