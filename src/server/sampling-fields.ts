import { z } from "zod";
import type { GenerateRequest } from "../engine/request.ts";
import type { ServedModel } from "./served-model.ts";

const tokenId = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);
const stopString = z.string().min(1).max(1024);

/** Fields that chat and plain completions share: OpenAI's, and below them those vLLM adds. */
export const samplingFields = {
  model: z.string().max(512).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,10}$/, "must be a token id"), z.number().min(-100).max(100))
    .nullish(),
  seed: z.int().nullish(),
  n: z.int().min(1).max(128).nullish(),
  stop: z.union([stopString, z.array(stopString).max(32)]).nullish(),
  max_tokens: z.int().min(1).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
  user: z.string().max(512).nullish(),
  top_k: z
    .int()
    .min(-1)
    .max(2 ** 31 - 1)
    .nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().positive().max(100).nullish(),
  stop_token_ids: z.array(tokenId).max(256).nullish(),
  include_stop_str_in_output: z.boolean().nullish(),
  ignore_eos: z.boolean().nullish(),
  min_tokens: z.int().min(0).nullish(),
  skip_special_tokens: z.boolean().nullish(),
  priority: z
    .int()
    .min(-(2 ** 31))
    .max(2 ** 31 - 1)
    .nullish(),
};

const schema = z.object(samplingFields);
/** The checked values of {@link samplingFields}. */
export type SamplingFields = z.output<typeof schema>;

/** Who asks, and how to stop: what a request carries beside its body. */
export interface Caller {
  /** Requests of one caller share its turn. */
  readonly client: string;
  readonly signal: AbortSignal;
}

/** The engine's request for `promptIds`; what is not given comes from the model's own defaults. */
export function toGenerateRequest(
  model: Pick<ServedModel, "defaults">,
  fields: SamplingFields,
  promptIds: ArrayLike<number>,
  { client, signal }: Caller,
): GenerateRequest {
  const suggested = model.defaults.doSample ? model.defaults : undefined;
  const { seed } = fields;
  return {
    promptIds,
    temperature: fields.temperature ?? suggested?.temperature ?? 1,
    topK: Math.max(0, fields.top_k ?? suggested?.topK ?? 0),
    topP: fields.top_p ?? suggested?.topP ?? 1,
    minP: fields.min_p ?? suggested?.minP ?? 0,
    repetitionPenalty: fields.repetition_penalty ?? undefined,
    presencePenalty: fields.presence_penalty ?? undefined,
    frequencyPenalty: fields.frequency_penalty ?? undefined,
    logitBias: new Map(Object.entries(fields.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias])),
    seed: seed == null ? undefined : seed < 0 ? 2 ** 53 + seed : seed,
    n: fields.n ?? undefined,
    stop: fields.stop == null ? undefined : [fields.stop].flat(),
    stopTokenIds: fields.stop_token_ids ?? undefined,
    includeStop: fields.include_stop_str_in_output ?? undefined,
    ignoreEos: fields.ignore_eos ?? undefined,
    minTokens: fields.min_tokens ?? undefined,
    maxTokens: fields.max_tokens ?? undefined,
    skipSpecialTokens: fields.skip_special_tokens ?? undefined,
    priority: fields.priority ?? undefined,
    client: fields.user == null ? client : `${client}/${fields.user}`,
    signal,
  };
}
