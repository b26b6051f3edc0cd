import type { LanguageModelV3CallOptions, SharedV3Warning } from "@ai-sdk/provider";
import { type ChatRequest, chatRequest } from "../server/chat-request.ts";
import { parseFields } from "../server/read-body.ts";
import { toMessages } from "./prompt-messages.ts";

/** A call of the AI SDK as a chat request, and what of it could not be heeded. */
export interface TranslatedCall {
  readonly body: ChatRequest;
  readonly warnings: SharedV3Warning[];
}

function toolsOf({ tools = [] }: LanguageModelV3CallOptions, warnings: SharedV3Warning[]): object[] {
  return tools.flatMap((tool) => {
    if (tool.type === "provider") {
      warnings.push({ type: "unsupported", feature: `provider tool ${tool.id}` });
      return [];
    }
    const { name, description, inputSchema } = tool;
    return [{ type: "function", function: { name, description, parameters: inputSchema } }];
  });
}

function toolChoiceOf({ toolChoice }: LanguageModelV3CallOptions): unknown {
  if (toolChoice === undefined) return undefined;
  return toolChoice.type === "tool"
    ? { type: "function", function: { name: toolChoice.toolName } }
    : toolChoice.type;
}

function responseFormatOf({ responseFormat }: LanguageModelV3CallOptions): unknown {
  if (responseFormat?.type !== "json") return undefined;
  return responseFormat.schema === undefined
    ? { type: "json_object" }
    : { type: "json_schema", json_schema: { schema: responseFormat.schema } };
}

/**
 * Translates a call; `providerOptions.flashmla` may hold any further field of a chat request, such as `min_p`. Throws an
 * ApiError that names the field that is out of range, UserError for a prompt of more than text.
 */
export function translateCall(options: LanguageModelV3CallOptions): TranslatedCall {
  const warnings: SharedV3Warning[] = [];
  const tools = toolsOf(options, warnings);
  const body = parseFields(chatRequest, {
    ...options.providerOptions?.flashmla,
    messages: toMessages(options.prompt),
    max_tokens: options.maxOutputTokens,
    temperature: options.temperature,
    top_p: options.topP,
    top_k: options.topK,
    presence_penalty: options.presencePenalty,
    frequency_penalty: options.frequencyPenalty,
    stop: options.stopSequences?.length ? options.stopSequences : undefined,
    seed: options.seed,
    response_format: responseFormatOf(options),
    ...(tools.length === 0 ? {} : { tools, tool_choice: toolChoiceOf(options) }),
  });
  return { body, warnings };
}
