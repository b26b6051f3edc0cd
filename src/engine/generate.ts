import { checkInteger } from "../base/checks.ts";
import { UserError } from "../base/errors.ts";
import type { CachedSequence } from "../cache/paged-latent-cache.ts";
import type { SamplingParams } from "../kernels/sampling/params.ts";
import type { LanguageModel } from "./language-model.ts";

/** How {@link generate} draws and when it ends. */
export interface GenerateOptions {
  /** Tokens to draw at most; default: up to the end of the context. */
  readonly maxTokens?: number | undefined;
  /** Default: greedy. */
  readonly sampling?: Partial<Omit<SamplingParams, "step">> | undefined;
  /** Ids that end the text and are not part of it. */
  readonly stopTokenIds?: Iterable<number> | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called as the prompt is read. */
  readonly onPrefill?: ((doneTokens: number, totalTokens: number) => void) | undefined;
}

/** Why a text ended: a stop id was drawn, or `maxTokens` or the context was reached. */
export type FinishReason = "stop" | "length";

const greedy: SamplingParams = { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0, step: 0 };

/** Lets timers, signals and sockets have their turn: a step on the CPU device holds the thread until it is done. */
const nextTurn = (): Promise<void> =>
  new Promise((resolve) => {
    if (typeof setImmediate === "function") setImmediate(resolve);
    else setTimeout(resolve, 0);
  });

/** Throws UserError unless the prompt is ids of the model's vocabulary that leave room for one more token. */
export function checkPrompt(
  model: Pick<LanguageModel, "config" | "maxContext">,
  ids: readonly number[],
): void {
  const { vocabSize } = model.config;
  if (ids.length === 0) throw new UserError("The prompt is empty; give at least one token.");
  const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (bad !== undefined) {
    throw new UserError(
      `The prompt has the token id ${bad}; this model's ids go from 0 to ${vocabSize - 1}.`,
    );
  }
  if (ids.length >= model.maxContext) {
    throw new UserError(
      `The prompt has ${ids.length} tokens and the context ${model.maxContext}; shorten the prompt or raise the context.`,
    );
  }
}

interface Run {
  readonly model: LanguageModel;
  readonly sequence: CachedSequence;
  readonly slots: Int32Array;
}

function append({ model, sequence, slots }: Run, tokens: number): void {
  if (!model.cache.reserve(sequence, tokens)) {
    throw new UserError(
      "The cache has no free page left; end another text first or open the model with a larger cache.",
    );
  }
  model.cache.append(sequence, tokens, slots);
}

async function prefill(
  run: Run,
  ids: readonly number[],
  sampling: SamplingParams,
  { signal, onPrefill }: GenerateOptions,
): Promise<number> {
  const { runner } = run.model;
  let token: number | null = null;
  for (let position = 0; position < ids.length; position += runner.maxChunkTokens) {
    signal?.throwIfAborted();
    const tokenIds = ids.slice(position, position + runner.maxChunkTokens);
    append(run, tokenIds.length);
    const isLast = position + tokenIds.length === ids.length;
    const { slots, sequence } = run;
    const chunk = { tokenIds, position, slots, pages: sequence.pages, sampling: isLast ? sampling : null };
    token = await runner.prefill(chunk);
    onPrefill?.(position + tokenIds.length, ids.length);
    await nextTurn();
  }
  return token!;
}

/**
 * Continues `promptIds` token by token through the paged latent cache: prompt chunks by expanded attention, then one
 * absorbed step per token. Returns why it ended. Throws UserError for a prompt that does not fit, and what `signal`
 * throws; the pages go back in any case.
 */
export async function* generate(
  model: LanguageModel,
  promptIds: readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<number, FinishReason> {
  checkPrompt(model, promptIds);
  const room = model.maxContext - promptIds.length;
  const maxTokens = Math.min(checkInteger("maxTokens", options.maxTokens ?? room, { min: 0 }), room);
  if (maxTokens === 0) return "length";
  const stops = new Set(options.stopTokenIds);
  const sampling = { ...greedy, ...options.sampling };
  const sequence = model.cache.create();
  const run = { model, sequence, slots: new Int32Array(model.runner.maxChunkTokens) };
  try {
    let tokenId = await prefill(run, promptIds, sampling, options);
    for (let step = 1; ; step++) {
      if (stops.has(tokenId)) return "stop";
      yield tokenId;
      if (step === maxTokens) return "length";
      options.signal?.throwIfAborted();
      append(run, 1);
      const row = { tokenId, position: sequence.length - 1, slot: run.slots[0]!, pages: sequence.pages };
      const drawn = await model.runner.decode([{ ...row, sampling: { ...sampling, step } }]);
      tokenId = drawn[0]!;
      await nextTurn();
    }
  } finally {
    model.cache.free(sequence);
  }
}

/**
 * The logits, f32 [vocab], of the last `last` positions of `ids`, computed as a prompt is. Throws UserError for ids that
 * do not fit, RangeError for a `last` past their number.
 */
export async function promptLogits(
  model: LanguageModel,
  ids: readonly number[],
  last: number,
): Promise<Float32Array[]> {
  checkPrompt({ config: model.config, maxContext: model.maxContext + 1 }, ids);
  const first = ids.length - checkInteger("last", last, { min: 1, max: ids.length });
  const sequence = model.cache.create();
  const run = { model, sequence, slots: new Int32Array(model.runner.maxChunkTokens) };
  const logits: Float32Array[] = [];
  try {
    for (let position = 0; position < ids.length; position += model.runner.maxChunkTokens) {
      const tokenIds = ids.slice(position, position + model.runner.maxChunkTokens);
      append(run, tokenIds.length);
      const chunk = { tokenIds, position, slots: run.slots, pages: sequence.pages, sampling: null };
      const rows = [...tokenIds.keys()].filter((row) => position + row >= first);
      logits.push(...(await model.runner.score(chunk, rows)));
      await nextTurn();
    }
    return logits;
  } finally {
    model.cache.free(sequence);
  }
}
