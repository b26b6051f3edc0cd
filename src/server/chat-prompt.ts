import { errorMessage } from "../base/errors.ts";
import { ContextLengthError } from "../engine/errors.ts";
import { type ChatMessage, type ChatTemplate, renderChat } from "../text/chat-template.ts";
import type { ChatRequest, RequestMessage, RequestTool } from "./chat-request.ts";
import { invalid } from "./errors.ts";
import type { ServedModel } from "./served-model.ts";

function textOf(content: RequestMessage["content"]): string | null {
  if (content == null || typeof content === "string") return content ?? null;
  return content.map((part) => part.text ?? part.refusal ?? "").join("\n");
}

/** Templates write the arguments of a call as JSON themselves, so they want the object and not its text. */
function parseArguments(text: string, param: string): unknown {
  try {
    return text.trim() === "" ? {} : JSON.parse(text);
  } catch (error) {
    throw invalid(param, `must be JSON: ${errorMessage(error)}`);
  }
}

function toTemplateMessage({ tool_calls, ...message }: RequestMessage, index: number): ChatMessage {
  const calls = tool_calls?.map((call, i) => {
    const param = `messages[${index}].tool_calls[${i}].function.arguments`;
    return {
      ...call,
      function: { ...call.function, arguments: parseArguments(call.function.arguments, param) },
    };
  });
  const content = textOf(message.content);
  return { ...message, content, ...(calls === undefined ? {} : { tool_calls: calls }) };
}

/** Whether the model's chat template writes the tools of a request into its prompt. */
export function templateTakesTools(chat: ChatTemplate | undefined): boolean {
  const sources = [...(chat?.templates ?? [])];
  return sources.some(([name, text]) => name === "tool_use" || /\btools\b/.test(text));
}

/** The text of a conversation as the model was trained on it. Throws UserError or ApiError when it cannot be rendered. */
export function renderPrompt(
  { tokenizer }: Pick<ServedModel, "tokenizer">,
  request: Pick<ChatRequest, "messages" | "add_generation_prompt" | "chat_template_kwargs">,
  tools: readonly RequestTool[] | undefined,
): string {
  return renderChat(tokenizer.chat, {
    messages: request.messages.map(toTemplateMessage),
    addGenerationPrompt: request.add_generation_prompt ?? true,
    variables: request.chat_template_kwargs ?? {},
    ...(tools === undefined ? {} : { tools }),
  });
}

const longestTokens = new WeakMap<ServedModel["tokenizer"], number>();

function longestToken(tokenizer: ServedModel["tokenizer"]): number {
  let longest = longestTokens.get(tokenizer);
  if (longest === undefined) {
    longest = 1;
    for (let id = 0; id < tokenizer.vocabSize; id++) {
      longest = Math.max(longest, tokenizer.tokenOf(id)?.length ?? 0);
    }
    longestTokens.set(tokenizer, longest);
  }
  return longest;
}

/**
 * The ids of `text`. A text that cannot fit the context, were every token the longest one, is refused before the
 * tokenizer spends time on it. Throws ContextLengthError.
 */
export function encodeBounded(
  { tokenizer, engine }: Pick<ServedModel, "tokenizer" | "engine">,
  text: string,
  addSpecialTokens: boolean,
): Int32Array {
  const fewest = Math.floor(text.length / longestToken(tokenizer));
  if (fewest > engine.maxContext) throw new ContextLengthError(fewest, null, engine.maxContext);
  return tokenizer.encode(text, { addSpecialTokens });
}
