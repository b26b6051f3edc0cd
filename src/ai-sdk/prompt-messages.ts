import type {
  LanguageModelV3Message,
  LanguageModelV3Prompt,
  LanguageModelV3ToolResultOutput,
} from "@ai-sdk/provider";
import { UserError } from "../base/errors.ts";

type Part = Exclude<LanguageModelV3Message, { role: "system" }>["content"][number];

function outputText(output: LanguageModelV3ToolResultOutput): string {
  if (output.type === "text" || output.type === "error-text") return output.value;
  if (output.type === "json" || output.type === "error-json") return JSON.stringify(output.value);
  if (output.type === "execution-denied") return output.reason ?? "The execution of this tool was denied.";
  return output.value.map((part) => (part.type === "text" ? part.text : `[${part.type}]`)).join("\n");
}

function textOf(parts: readonly Part[]): string {
  const texts = parts.map((part) => {
    if (part.type === "file") throw new UserError("This model takes text only; the prompt has a file.");
    return part.type === "text" ? part.text : "";
  });
  return texts.join("");
}

function callsOf(parts: readonly Part[]): object[] {
  return parts.flatMap((part) => {
    if (part.type !== "tool-call") return [];
    const given = typeof part.input === "string" ? part.input : JSON.stringify(part.input ?? {});
    return [{ id: part.toolCallId, type: "function", function: { name: part.toolName, arguments: given } }];
  });
}

function resultsOf(parts: readonly Part[]): object[] {
  return parts.flatMap((part) =>
    part.type === "tool-result"
      ? [
          {
            role: "tool",
            tool_call_id: part.toolCallId,
            name: part.toolName,
            content: outputText(part.output),
          },
        ]
      : [],
  );
}

/** A prompt of the AI SDK as messages of OpenAI. Throws UserError for a file; reasoning of earlier turns is left out. */
export function toMessages(prompt: LanguageModelV3Prompt): object[] {
  return prompt.flatMap((message): object[] => {
    if (message.role === "system") return [{ role: "system", content: message.content }];
    if (message.role === "tool") return resultsOf(message.content);
    if (message.role === "user") return [{ role: "user", content: textOf(message.content) }];
    const calls = callsOf(message.content);
    const content = textOf(message.content);
    return [{ role: "assistant", content, ...(calls.length === 0 ? {} : { tool_calls: calls }) }];
  });
}
