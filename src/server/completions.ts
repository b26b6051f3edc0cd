import { randomUUID } from "node:crypto";
import type { OutputLogprob } from "../engine/events.ts";
import { checkModelName } from "./check-model-name.ts";
import {
  type CompletionPrompt,
  type PromptEvent,
  readPrompts,
  startCompletion,
} from "./completion-generation.ts";
import { type CompletionRequest, completionRequest } from "./completion-request.ts";
import { invalid } from "./errors.ts";
import { primed } from "./event-stream.ts";
import { completionLogprobs } from "./logprobs.ts";
import { readJsonBody } from "./read-body.ts";
import type { RequestContext } from "./request-context.ts";
import { streamAnswer } from "./stream-answer.ts";
import { UsageTotal } from "./usage.ts";

interface Choice {
  text: string;
  readonly logprobs: OutputLogprob[];
  reason: string | null;
  stop: string | number | null;
}

function checkFields(body: CompletionRequest): void {
  if (body.best_of != null && body.best_of !== (body.n ?? 1)) {
    throw invalid("best_of", "must equal n: this server ranks no completions");
  }
  if (body.echo && body.logprobs != null) throw invalid("echo", "cannot be combined with logprobs");
}

const headOf = ({ model }: RequestContext) => ({
  id: `cmpl-${randomUUID().replaceAll("-", "")}`,
  object: "text_completion",
  created: Math.floor(Date.now() / 1000),
  model: model.name,
});

async function answerWhole(
  context: RequestContext,
  body: CompletionRequest,
  prompts: readonly CompletionPrompt[],
  events: AsyncIterable<PromptEvent>,
): Promise<Response> {
  const n = body.n ?? 1;
  const choices = prompts.flatMap((prompt) =>
    Array.from({ length: n }, (): Choice => {
      return { text: body.echo ? prompt.text() : "", logprobs: [], reason: null, stop: null };
    }),
  );
  const usage = new UsageTotal();
  for await (const { prompt, event } of events) {
    const choice = choices[prompt * n + event.index]!;
    if (event.kind === "tokens") {
      choice.text += event.text;
      choice.logprobs.push(...event.logprobs);
    } else {
      Object.assign(choice, { reason: event.reason, stop: event.stop });
      usage.add(event.usage, prompt);
    }
  }
  usage.record(context.record);
  const { tokenizer } = context.model;
  return Response.json({
    ...headOf(context),
    choices: choices.map(({ text, logprobs, reason, stop }, index) => ({
      index,
      text,
      logprobs: body.logprobs == null ? null : completionLogprobs(tokenizer, logprobs, 0),
      finish_reason: reason,
      stop_reason: stop,
    })),
    usage,
  });
}

async function* chunksOf(
  context: RequestContext,
  body: CompletionRequest,
  prompts: readonly CompletionPrompt[],
  events: AsyncIterable<PromptEvent>,
): AsyncGenerator<object, void> {
  const wantsUsage = body.stream_options?.include_usage === true;
  const head = { ...headOf(context), ...(wantsUsage ? { usage: null } : {}) };
  const usage = new UsageTotal();
  const offsets = new Map<number, number>();
  const chunk = (index: number, text: string, logprobs: object | null, finish_reason: string | null) => ({
    ...head,
    choices: [{ index, text, logprobs, finish_reason }],
  });
  for await (const { prompt, event } of events) {
    const index = prompt * (body.n ?? 1) + event.index;
    const offset = offsets.get(index);
    if (offset === undefined && body.echo) yield chunk(index, prompts[prompt]!.text(), null, null);
    offsets.set(index, offset ?? 0);
    if (event.kind === "tokens") {
      const wanted = body.logprobs != null && event.logprobs.length > 0;
      const logprobs = wanted
        ? completionLogprobs(context.model.tokenizer, event.logprobs, offset ?? 0)
        : null;
      const length = logprobs?.tokens.reduce((sum, token) => sum + token.length, 0) ?? 0;
      offsets.set(index, (offset ?? 0) + length);
      if (event.text !== "" || logprobs !== null) yield chunk(index, event.text, logprobs, null);
    } else {
      usage.add(event.usage, prompt);
      usage.record(context.record);
      yield chunk(index, "", null, event.reason);
    }
  }
  if (wantsUsage) yield { ...head, choices: [], usage };
}

/** POST /v1/completions. */
export async function completions(context: RequestContext): Promise<Response> {
  const { request, model, limits, record } = context;
  const body = await readJsonBody(request, completionRequest, limits.maxBodyBytes);
  checkModelName(model, body.model);
  checkFields(body);
  record.stream = body.stream === true;
  const prompts = readPrompts(context, body);
  const events = startCompletion(context, body, prompts);
  if (!body.stream) return answerWhole(context, body, prompts, events);
  return streamAnswer(context, await primed(chunksOf(context, body, prompts, events)));
}
