import { templateTakesTools } from "./chat-prompt.ts";
import type { ChatRequest, RequestTool } from "./chat-request.ts";
import { invalid } from "./errors.ts";
import type { Grammar } from "./grammar/grammars.ts";
import type { ServedModel } from "./served-model.ts";
import { type ToolFormat, toolFormatOf } from "./tool-formats.ts";

/**
 * What a request's output is: text; text with calls in it; the arguments of one named function; or a JSON list of
 * calls. The last two are kept to a grammar, so they do not depend on how the model writes calls of its own accord.
 */
export type OutputPlan =
  | { readonly kind: "text" }
  | { readonly kind: "calls-in-text"; readonly format: ToolFormat; readonly maxCalls: number }
  | { readonly kind: "arguments"; readonly name: string }
  | { readonly kind: "call-list" };

/** How a request's tools and response format come to bear. */
export interface ToolPlan {
  readonly output: OutputPlan;
  /** What the template is given. */
  readonly tools: readonly RequestTool[] | undefined;
  readonly grammar: Grammar | undefined;
}

const parametersOf = ({ function: { parameters } }: RequestTool): unknown => parameters ?? { type: "object" };

function listSchema(tools: readonly RequestTool[], single: boolean): unknown {
  const call = (tool: RequestTool) => ({
    type: "object",
    properties: { name: { const: tool.function.name }, parameters: parametersOf(tool) },
    required: ["name", "parameters"],
  });
  const items = tools.length === 1 ? call(tools[0]!) : { anyOf: tools.map(call) };
  return { type: "array", items, minItems: 1, ...(single ? { maxItems: 1 } : {}) };
}

function responseGrammar({ response_format: format }: ChatRequest): Grammar | undefined {
  if (format == null || format.type === "text") return undefined;
  return format.type === "json_object" ? "json" : { schema: format.json_schema.schema };
}

function forcedPlan(
  tools: readonly RequestTool[],
  choice: Exclude<ChatRequest["tool_choice"], "none" | "auto" | null | undefined>,
  single: boolean,
): ToolPlan {
  if (choice === "required") {
    return { output: { kind: "call-list" }, tools, grammar: { schema: listSchema(tools, single) } };
  }
  const { name } = choice.function;
  const tool = tools.find((one) => one.function.name === name);
  if (tool === undefined) throw invalid("tool_choice", `names ${name}, which is not among the tools`);
  return { output: { kind: "arguments", name }, tools, grammar: { schema: parametersOf(tool) } };
}

/** Reads tools, tool_choice and response_format together. Throws ApiError for what does not go together. */
export function planTools(model: Pick<ServedModel, "tokenizer">, request: ChatRequest): ToolPlan {
  const tools = request.tools ?? [];
  const choice = request.tool_choice ?? (tools.length > 0 ? "auto" : "none");
  const grammar = responseGrammar(request);
  if (choice === "none") return { output: { kind: "text" }, tools: undefined, grammar };
  if (tools.length === 0) throw invalid("tool_choice", "needs tools, and the request has none");
  if (!templateTakesTools(model.tokenizer.chat)) {
    throw invalid("tools", "this model's chat template has no place for tools", "unsupported_parameter");
  }
  const single = request.parallel_tool_calls === false;
  if (choice !== "auto") {
    if (grammar !== undefined) throw invalid("response_format", "cannot be combined with a forced tool");
    return forcedPlan(tools, choice, single);
  }
  const format = grammar === undefined ? toolFormatOf(model.tokenizer.chat) : null;
  if (format === null) return { output: { kind: "text" }, tools, grammar };
  const maxCalls = single ? 1 : Number.POSITIVE_INFINITY;
  return { output: { kind: "calls-in-text", format, maxCalls }, tools, grammar };
}
