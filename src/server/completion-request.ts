import { z } from "zod";
import { samplingFields } from "./sampling-fields.ts";

const id = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);

/** A text, ids, or several of either. */
const prompt = z.union(
  [z.string(), z.array(z.string()).min(1), z.array(id).min(1), z.array(z.array(id).min(1)).min(1)],
  { error: "must be a text, token ids, or a list of either that is not empty" },
);

/** The body of POST /v1/completions. */
export const completionRequest = z.object({
  ...samplingFields,
  prompt,
  logprobs: z.int().min(0).max(20).nullish(),
  echo: z.boolean().nullish(),
  best_of: z.int().min(1).nullish(),
  suffix: z.null("is not supported").optional(),
  add_special_tokens: z.boolean().nullish(),
});

/** The checked body of POST /v1/completions. */
export type CompletionRequest = z.output<typeof completionRequest>;

/** The body of POST /tokenize: a text, or a conversation. */
export const tokenizeRequest = z.object({
  model: z.string().nullish(),
  prompt: z.string().nullish(),
  messages: z.array(z.looseObject({ role: z.string(), content: z.string().nullish() })).nullish(),
  add_special_tokens: z.boolean().nullish(),
  add_generation_prompt: z.boolean().nullish(),
  return_token_strs: z.boolean().nullish(),
});

/** The body of POST /detokenize. */
export const detokenizeRequest = z.object({
  model: z.string().nullish(),
  tokens: z.array(id),
});
