import { z } from "zod";
import { samplingFields } from "./sampling-fields.ts";

const textPart = z.looseObject({
  type: z.enum(["text", "refusal"], "this model takes text only"),
  text: z.string().optional(),
  refusal: z.string().optional(),
});
const content = z.union([z.string(), z.array(textPart).max(1024)]).nullish();
const toolName = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[\w.-]+$/, "must be of letters, digits, dots, dashes and underscores");

const toolCall = z.looseObject({
  id: z.string().max(256).optional(),
  type: z.literal("function").default("function"),
  function: z.looseObject({ name: toolName, arguments: z.string() }),
});

const message = z.looseObject({
  role: z.string().min(1).max(64),
  content,
  name: z.string().max(256).nullish(),
  tool_call_id: z.string().max(256).nullish(),
  tool_calls: z.array(toolCall).max(128).nullish(),
});

/** A JSON schema: an object, or true or false. */
export const jsonSchema = z.union([z.boolean(), z.record(z.string(), z.unknown())]);

const tool = z.looseObject({
  type: z.literal("function"),
  function: z.looseObject({
    name: toolName,
    description: z.string().nullish(),
    parameters: jsonSchema.nullish(),
    strict: z.boolean().nullish(),
  }),
});

const toolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.object({ type: z.literal("function"), function: z.object({ name: toolName }) }),
]);

const responseFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object") }),
  z.object({
    type: z.literal("json_schema"),
    json_schema: z.object({ name: z.string().max(128).optional(), schema: jsonSchema }),
  }),
]);

const absent = (more = "") => z.null(`is not supported${more}`).optional();

/** The body of POST /v1/chat/completions. */
export const chatRequest = z.object({
  ...samplingFields,
  messages: z.array(message).min(1).max(4096),
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  response_format: responseFormat.nullish(),
  tools: z.array(tool).max(128).nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  audio: absent(),
  functions: absent("; give tools"),
  function_call: absent("; give tool_choice"),
  add_generation_prompt: z.boolean().nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
});

/** The checked body of POST /v1/chat/completions. */
export type ChatRequest = z.output<typeof chatRequest>;
/** One checked message. */
export type RequestMessage = ChatRequest["messages"][number];
/** One checked tool. */
export type RequestTool = NonNullable<ChatRequest["tools"]>[number];
