import type { GenerateEvent } from "../engine/events.ts";
import { encodeBounded } from "./chat-prompt.ts";
import type { CompletionRequest } from "./completion-request.ts";
import { invalid, refusal } from "./errors.ts";
import { merged } from "./merge-iterators.ts";
import type { RequestContext } from "./request-context.ts";
import { toGenerateRequest } from "./sampling-fields.ts";

/** One of a completion's prompts. */
export interface CompletionPrompt {
  readonly ids: ArrayLike<number>;
  /** Its text, for `echo`. */
  readonly text: () => string;
}

/** An event of the engine, with the number of the prompt it belongs to. */
export interface PromptEvent {
  readonly prompt: number;
  readonly event: GenerateEvent;
}

/** OpenAI's, for plain completions alone. */
const DEFAULT_TOKENS = 16;

const isText = (value: unknown): value is string => typeof value === "string";

/** The request's prompts, encoded. Throws ApiError or ContextLengthError. */
export function readPrompts(
  { model, limits }: Pick<RequestContext, "model" | "limits">,
  body: CompletionRequest,
): CompletionPrompt[] {
  const given = body.prompt;
  const list: readonly (string | readonly number[])[] = isText(given)
    ? [given]
    : given.every((one) => typeof one === "number")
      ? [given]
      : given;
  if (list.length > limits.maxPrompts) {
    throw invalid("prompt", `has ${list.length} prompts, more than ${limits.maxPrompts}`);
  }
  return list.map((prompt) => {
    const ids = isText(prompt) ? encodeBounded(model, prompt, body.add_special_tokens ?? true) : prompt;
    return { ids, text: () => (isText(prompt) ? prompt : model.tokenizer.decode(prompt)) };
  });
}

/**
 * Queues every prompt and yields their events as they come. Throws an ApiError for what cannot be served; then nothing
 * stays queued.
 */
export function startCompletion(
  { model, client, signal, abort }: RequestContext,
  body: CompletionRequest,
  prompts: readonly CompletionPrompt[],
): AsyncGenerator<PromptEvent, void> {
  try {
    const started = prompts.map(({ ids }) =>
      model.engine.generate({
        ...toGenerateRequest(model, body, ids, { client, signal }),
        maxTokens: body.max_tokens ?? DEFAULT_TOKENS,
        logprobs: body.logprobs ?? undefined,
      }),
    );
    return merged(started, (event, prompt) => ({ prompt, event }));
  } catch (error) {
    abort(new Error("another prompt of the request was refused"));
    throw refusal(error);
  }
}
