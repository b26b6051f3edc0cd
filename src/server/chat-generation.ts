import type { GenerateEvent, OutputLogprob, Usage } from "../engine/events.ts";
import type { GenerateRequest } from "../engine/request.ts";
import { encodeBounded, renderPrompt } from "./chat-prompt.ts";
import type { ChatRequest } from "./chat-request.ts";
import { ChoiceReader, type ToolCall } from "./choice-reader.ts";
import { invalid, refusal } from "./errors.ts";
import { GrammarError } from "./grammar/grammars.ts";
import type { TokenMask } from "./grammar/token-mask.ts";
import { type Caller, toGenerateRequest } from "./sampling-fields.ts";
import type { ServedModel } from "./served-model.ts";
import { planTools, type ToolPlan } from "./tool-plan.ts";

/** How a choice ended. */
export interface ChoiceEnd {
  readonly reason: "stop" | "length" | "tool_calls";
  readonly stop: string | number | null;
  readonly usage: Usage;
}

/** A step in one choice's output. */
export interface ChoiceDelta {
  readonly index: number;
  readonly content: string;
  readonly calls: readonly ToolCall[];
  readonly logprobs: readonly OutputLogprob[];
  /** Set in the last delta of a choice. */
  readonly end: ChoiceEnd | null;
}

function logprobsOf(request: ChatRequest): number | undefined {
  if (request.logprobs) return request.top_logprobs ?? 0;
  if (request.top_logprobs == null || request.top_logprobs === 0) return undefined;
  throw invalid("top_logprobs", "needs logprobs to be true");
}

async function masksOf(model: ServedModel, plan: ToolPlan, body: ChatRequest): Promise<TokenMask[]> {
  if (plan.grammar === undefined) return [];
  if ((body.min_tokens ?? 0) > 0) {
    throw invalid("min_tokens", "cannot be combined with a grammar: JSON ends where it ends");
  }
  try {
    return await model.grammars.constraints(plan.grammar, body.n ?? 1);
  } catch (error) {
    if (!(error instanceof GrammarError)) throw error;
    const param = plan.output.kind === "text" ? "response_format" : "tools";
    throw invalid(param, `cannot be made into a grammar: ${error.message}`);
  }
}

function toRequest(model: ServedModel, body: ChatRequest, plan: ToolPlan, caller: Caller): GenerateRequest {
  const text = renderPrompt(model, body, plan.tools);
  const promptIds = encodeBounded(model, text, false);
  const request = toGenerateRequest(model, body, promptIds, caller);
  return {
    ...request,
    maxTokens: body.max_completion_tokens ?? request.maxTokens,
    logprobs: logprobsOf(body),
    // The marks that frame a call are special tokens in some models.
    ...(plan.output.kind === "calls-in-text" ? { skipSpecialTokens: false } : {}),
  };
}

function* deltasOf(event: GenerateEvent, reader: ChoiceReader): Generator<ChoiceDelta> {
  const { index } = event;
  if (event.kind === "tokens") {
    yield { index, ...reader.push(event.text), logprobs: event.logprobs, end: null };
    return;
  }
  const rest = reader.flush();
  const reason = reader.hasCalls && event.reason === "stop" ? "tool_calls" : event.reason;
  yield { index, ...rest, logprobs: [], end: { reason, stop: event.stop, usage: event.usage } };
}

async function* readChoices(
  events: AsyncIterableIterator<GenerateEvent>,
  plan: ToolPlan,
  masks: readonly TokenMask[],
): AsyncGenerator<ChoiceDelta, void> {
  const readers = new Map<number, ChoiceReader>();
  try {
    for await (const event of events) {
      const reader = readers.get(event.index) ?? new ChoiceReader(plan.output);
      readers.set(event.index, reader);
      yield* deltasOf(event, reader);
    }
  } finally {
    for (const mask of masks) mask.dispose();
  }
}

/**
 * Queues a chat request and yields what its choices come to; leaving the loop cancels it. Rejects with an ApiError for
 * a request that cannot be served, and before anything is yielded; the iteration rejects as the engine's does.
 */
export async function startChat(
  model: ServedModel,
  body: ChatRequest,
  caller: Caller,
): Promise<AsyncGenerator<ChoiceDelta, void>> {
  const plan = planTools(model, body);
  const request = toRequest(model, body, plan, caller);
  const masks = await masksOf(model, plan, body);
  try {
    const constraint = masks.length === 0 ? undefined : (index: number) => masks[index]!;
    return readChoices(model.engine.generate({ ...request, constraint }), plan, masks);
  } catch (error) {
    for (const mask of masks) mask.dispose();
    throw refusal(error);
  }
}
