import { randomUUID } from "node:crypto";
import type { OutputLogprob } from "../engine/events.ts";
import { type ChoiceDelta, type ChoiceEnd, startChat } from "./chat-generation.ts";
import { type ChatRequest, chatRequest } from "./chat-request.ts";
import { checkModelName } from "./check-model-name.ts";
import type { ToolCall } from "./choice-reader.ts";
import { primed } from "./event-stream.ts";
import { chatLogprobs } from "./logprobs.ts";
import { readJsonBody } from "./read-body.ts";
import type { RequestContext } from "./request-context.ts";
import { streamAnswer } from "./stream-answer.ts";
import { UsageTotal } from "./usage.ts";

interface Choice {
  content: string;
  readonly calls: ToolCall[];
  readonly logprobs: OutputLogprob[];
  end: ChoiceEnd | null;
}

const callOf = ({ id, name, arguments: given }: ToolCall) => ({
  id,
  type: "function",
  function: { name, arguments: given },
});

function headOf(context: RequestContext, object: string) {
  const created = Math.floor(Date.now() / 1000);
  return { id: `chatcmpl-${randomUUID().replaceAll("-", "")}`, object, created, model: context.model.name };
}

async function fold(deltas: AsyncIterable<ChoiceDelta>, n: number): Promise<Choice[]> {
  const choices = Array.from(
    { length: n },
    (): Choice => ({ content: "", calls: [], logprobs: [], end: null }),
  );
  for await (const { index, content, calls, logprobs, end } of deltas) {
    const choice = choices[index]!;
    choice.content += content;
    choice.calls.push(...calls);
    choice.logprobs.push(...logprobs);
    choice.end ??= end;
  }
  return choices;
}

async function answerWhole(context: RequestContext, body: ChatRequest, deltas: AsyncIterable<ChoiceDelta>) {
  const choices = await fold(deltas, body.n ?? 1);
  const usage = new UsageTotal();
  for (const { end } of choices) if (end !== null) usage.add(end.usage);
  usage.record(context.record);
  const { tokenizer } = context.model;
  return Response.json({
    ...headOf(context, "chat.completion"),
    choices: choices.map(({ content, calls, logprobs, end }, index) => ({
      index,
      message: {
        role: "assistant",
        content: content === "" && calls.length > 0 ? null : content,
        refusal: null,
        ...(calls.length === 0 ? {} : { tool_calls: calls.map(callOf) }),
      },
      logprobs: body.logprobs ? chatLogprobs(tokenizer, logprobs) : null,
      finish_reason: end?.reason ?? null,
      stop_reason: end?.stop ?? null,
    })),
    usage,
  });
}

/** The chunks of a streamed answer: the role first, then what comes, the usage last where it was asked for. */
async function* chunksOf(
  context: RequestContext,
  body: ChatRequest,
  deltas: AsyncIterable<ChoiceDelta>,
): AsyncGenerator<object, void> {
  const wantsUsage = body.stream_options?.include_usage === true;
  const head = { ...headOf(context, "chat.completion.chunk"), ...(wantsUsage ? { usage: null } : {}) };
  const usage = new UsageTotal();
  const calls = new Map<number, number>();
  const chunk = (index: number, delta: object, logprobs: object | null, finish_reason: string | null) => ({
    ...head,
    choices: [{ index, delta, logprobs, finish_reason }],
  });
  for await (const { index, content, calls: written, logprobs, end } of deltas) {
    const first = calls.get(index);
    if (first === undefined) yield chunk(index, { role: "assistant", content: "" }, null, null);
    calls.set(index, (first ?? 0) + written.length);
    const noted =
      body.logprobs && logprobs.length > 0 ? chatLogprobs(context.model.tokenizer, logprobs) : null;
    if (content !== "" || noted !== null) yield chunk(index, { content }, noted, null);
    if (written.length > 0) {
      const tool_calls = written.map((call, i) => ({ index: (first ?? 0) + i, ...callOf(call) }));
      yield chunk(index, { tool_calls }, null, null);
    }
    if (end === null) continue;
    usage.add(end.usage);
    usage.record(context.record);
    yield chunk(index, {}, null, end.reason);
  }
  if (wantsUsage) yield { ...head, choices: [], usage };
}

/** POST /v1/chat/completions. */
export async function chatCompletions(context: RequestContext): Promise<Response> {
  const { request, model, limits, record } = context;
  const body = await readJsonBody(request, chatRequest, limits.maxBodyBytes);
  checkModelName(model, body.model);
  record.stream = body.stream === true;
  const deltas = await startChat(model, body, context);
  if (!body.stream) return answerWhole(context, body, deltas);
  return streamAnswer(context, await primed(chunksOf(context, body, deltas)));
}
