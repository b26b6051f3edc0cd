import { errorMessage, UserError } from "../base/errors.ts";
import type { Device } from "../device/device.ts";
import { Engine } from "../engine/engine.ts";
import { type LanguageModel, openLanguageModel } from "../engine/language-model.ts";
import { promptLogits } from "../engine/prompt-logits.ts";
import type { ModelConfig } from "../formats/config-types.ts";
import { type LatentDtype, latentEntryBytes } from "../kernels/common/latent-cache.ts";

/** What a cache format does to a model, beside the same model with an f32 cache. */
export interface ModelEffect {
  readonly dtype: LatentDtype;
  readonly bytesPerTokenAndLayer: number;
  /** exp of the mean negative log-likelihood of a token. */
  readonly perplexity: number;
  readonly bitsPerByte: number;
  /** Share of positions whose likeliest token is the same. */
  readonly agreement: number;
  /** Greedy tokens that are the same before the first other one, mean over continuations. */
  readonly sameTokens: number;
  /** Continuations that are the same to the end, as a share. */
  readonly sameContinuations: number;
}

/** What is measured on which text. */
export interface ModelEffectOptions {
  readonly device: Device;
  /** Path of the model's folder. */
  readonly folder: string;
  readonly config: ModelConfig;
  /** The held-out text as ids, and its bytes. */
  readonly ids: readonly number[];
  readonly bytes: number;
  /** The first has to be f32: what the others are compared with. */
  readonly dtypes: readonly LatentDtype[];
  /** A format that is not done by then, by `performance.now()`, is left out and named. */
  readonly deadline: number;
  readonly onToken?: (done: number, total: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Tokens of a window at most; windows do not overlap. */
const WINDOW = 1024;
const CONTINUATIONS = 8;
const PROMPT_TOKENS = 64;
const CONTINUATION_TOKENS = 64;
const STOPPED = "stopped by Ctrl-C";

interface Reading {
  /** Sum of −ln p over predicted tokens. */
  loss: number;
  readonly choices: number[];
}

function readLogits(logits: Float32Array, next: number, reading: Reading): void {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += Math.exp(logits[id]! - logits[best]!);
  reading.loss += logits[best]! + Math.log(sum) - logits[next]!;
  reading.choices.push(best);
}

/** Throws UserError when the measurement is to end. */
function checkGoingOn({ signal, deadline }: ModelEffectOptions): void {
  if (signal?.aborted) throw new UserError(STOPPED);
  if (performance.now() > deadline) throw new UserError("the time limit was reached; raise --time-limit");
}

async function readText(model: LanguageModel, options: ModelEffectOptions, onWindow: (done: number) => void) {
  const { ids } = options;
  const reading: Reading = { loss: 0, choices: [] };
  const size = Math.min(WINDOW, model.maxContext);
  for (let start = 0; start + 1 < ids.length; start += size) {
    checkGoingOn(options);
    const window = ids.slice(start, start + size);
    const logits = await promptLogits(model.runner, window, window.length);
    for (let i = 0; i + 1 < window.length; i++) readLogits(logits[i]!, window[i + 1]!, reading);
    onWindow(start + window.length);
  }
  return reading;
}

async function continueText(model: LanguageModel, options: ModelEffectOptions): Promise<number[][]> {
  const { ids, signal } = options;
  const engine = new Engine({ runner: model.runner, tokenizer: null, eosTokenIds: [] });
  const step = Math.floor(Math.max(0, ids.length - PROMPT_TOKENS) / CONTINUATIONS);
  const texts: number[][] = [];
  try {
    for (let k = 0; k < CONTINUATIONS; k++) {
      const promptIds = ids.slice(k * step, k * step + PROMPT_TOKENS);
      const drawn: number[] = [];
      const request = { promptIds, temperature: 0, maxTokens: CONTINUATION_TOKENS, signal };
      for await (const event of engine.generate(request)) {
        if (event.kind === "tokens") drawn.push(...event.tokenIds);
      }
      checkGoingOn(options);
      texts.push(drawn);
    }
    return texts;
  } finally {
    await engine.close();
  }
}

/** How many tokens of `text` are those of `other` before the first that is not. */
export function samePrefix(text: readonly number[], other: readonly number[]): number {
  const different = text.findIndex((id, i) => id !== other[i]);
  return different === -1 ? text.length : different;
}

async function measureFormat(
  options: ModelEffectOptions,
  dtype: LatentDtype,
  onWindow: (done: number) => void,
) {
  const { device, folder, config } = options;
  const maxContext = Math.min(config.maxPositionEmbeddings, WINDOW);
  const model = await openLanguageModel(folder, { device, config, cacheDtype: dtype, maxContext });
  try {
    return { reading: await readText(model, options, onWindow), texts: await continueText(model, options) };
  } finally {
    model.close();
  }
}

type Measured = Awaited<ReturnType<typeof measureFormat>>;

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

function effectOf(
  { ids, bytes, config }: ModelEffectOptions,
  dtype: LatentDtype,
  { reading: { choices, loss }, texts }: Measured,
  exact: Measured,
): ModelEffect {
  const { kvLoraRank: latentWidth, qkRopeHeadDim: ropeWidth } = config.attention;
  const same = texts.map((text, k) => samePrefix(text, exact.texts[k]!));
  return {
    dtype,
    bytesPerTokenAndLayer: latentEntryBytes(dtype, { latentWidth, ropeWidth }),
    perplexity: Math.exp(loss / choices.length),
    bitsPerByte: ((loss / choices.length) * ids.length) / bytes / Math.LN2,
    agreement: mean(choices.map((choice, i) => (choice === exact.reading.choices[i] ? 1 : 0))),
    sameTokens: mean(same),
    sameContinuations: mean(same.map((count, k) => (count === texts[k]!.length ? 1 : 0))),
  };
}

/** The formats that were measured, and those that were not, with the reason. */
export interface ModelEffects {
  readonly effects: readonly ModelEffect[];
  readonly skipped: readonly { readonly what: string; readonly reason: string }[];
}

/**
 * Perplexity of the text and agreement of greedy choices with those of an f32 cache, for every format of `dtypes`: teacher-forced
 * over windows of 1024 tokens, and freely over eight continuations. A format that the device has no room or no kernels for, or
 * that an interruption cuts off, is named in `skipped`, and so is all the rest when f32 is.
 */
export async function measureModelEffect(options: ModelEffectOptions): Promise<ModelEffects> {
  const { dtypes, ids, signal, onToken } = options;
  const effects: ModelEffect[] = [];
  const skipped: { what: string; reason: string }[] = [];
  let exact: Measured | null | undefined;
  for (const [index, dtype] of dtypes.entries()) {
    const onWindow = (done: number) => onToken?.(index * ids.length + done, dtypes.length * ids.length);
    try {
      checkGoingOn(options);
      if (exact === null) throw new UserError(`${dtypes[0]} could not be measured to compare it with`);
      const measured = await measureFormat(options, dtype, onWindow);
      exact ??= measured;
      effects.push(effectOf(options, dtype, measured, exact));
    } catch (error) {
      exact ??= null;
      skipped.push({ what: `the model, ${dtype}`, reason: signal?.aborted ? STOPPED : errorMessage(error) });
    }
  }
  return { effects, skipped };
}
