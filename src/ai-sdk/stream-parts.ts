import type {
  LanguageModelV3FinishReason,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
} from "@ai-sdk/provider";
import type { ChoiceDelta, ChoiceEnd } from "../server/chat-generation.ts";

const unified = { stop: "stop", length: "length", tool_calls: "tool-calls" } as const;

/** The AI SDK's word for how a choice ended. */
export function finishReasonOf({ reason }: ChoiceEnd): LanguageModelV3FinishReason {
  return { unified: unified[reason], raw: reason };
}

/** The tokens of a choice as the AI SDK counts them. */
export function usageOf({ usage }: ChoiceEnd): LanguageModelV3Usage {
  const { promptTokens, cachedTokens, completionTokens } = usage;
  return {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedTokens,
      cacheRead: cachedTokens,
      cacheWrite: undefined,
    },
    outputTokens: { total: completionTokens, text: undefined, reasoning: undefined },
  };
}

const TEXT_ID = "text";

/** The parts of a stream: text as it comes, calls whole, the finish last. */
export async function* streamParts(
  deltas: AsyncIterable<ChoiceDelta>,
): AsyncGenerator<LanguageModelV3StreamPart, void> {
  let hasText = false;
  for await (const { content, calls, end } of deltas) {
    if (content !== "" && !hasText) yield { type: "text-start", id: TEXT_ID };
    hasText ||= content !== "";
    if (content !== "") yield { type: "text-delta", id: TEXT_ID, delta: content };
    for (const { id, name, arguments: input } of calls) {
      yield { type: "tool-input-start", id, toolName: name };
      yield { type: "tool-input-delta", id, delta: input };
      yield { type: "tool-input-end", id };
      yield { type: "tool-call", toolCallId: id, toolName: name, input };
    }
    if (end === null) continue;
    if (hasText) yield { type: "text-end", id: TEXT_ID };
    yield { type: "finish", finishReason: finishReasonOf(end), usage: usageOf(end) };
  }
}
