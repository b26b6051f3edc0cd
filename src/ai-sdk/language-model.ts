import { randomUUID } from "node:crypto";
import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3GenerateResult,
  LanguageModelV3StreamPart,
  LanguageModelV3StreamResult,
} from "@ai-sdk/provider";
import { type ChoiceEnd, startChat } from "../server/chat-generation.ts";
import type { ServedModel } from "../server/served-model.ts";
import { translateCall } from "./call-options.ts";
import { finishReasonOf, streamParts, usageOf } from "./stream-parts.ts";

/** A model of this process behind the AI SDK's interface (specification v3: AI SDK 6, taken by 7 as well). */
export class FlashmlaLanguageModel implements LanguageModelV3 {
  readonly specificationVersion = "v3";
  readonly provider = "flashmla";
  readonly modelId: string;
  readonly supportedUrls = {};
  readonly #model: ServedModel;

  constructor(model: ServedModel) {
    this.#model = model;
    this.modelId = model.name;
  }

  async doGenerate(options: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const { body, warnings } = translateCall(options);
    const signal = options.abortSignal ?? new AbortController().signal;
    const content: LanguageModelV3Content[] = [];
    let text = "";
    let end: ChoiceEnd | null = null;
    for await (const delta of await startChat(this.#model, body, { client: "", signal })) {
      text += delta.content;
      for (const { id, name, arguments: input } of delta.calls) {
        content.push({ type: "tool-call", toolCallId: id, toolName: name, input });
      }
      end = delta.end ?? end;
    }
    if (end === null) throw new Error("the engine ended a request without its last event");
    if (text !== "") content.unshift({ type: "text", text });
    const response = { id: randomUUID(), modelId: this.modelId, timestamp: new Date() };
    return { content, finishReason: finishReasonOf(end), usage: usageOf(end), warnings, response };
  }

  async doStream(options: LanguageModelV3CallOptions): Promise<LanguageModelV3StreamResult> {
    const { body, warnings } = translateCall(options);
    const controller = new AbortController();
    const signal = AbortSignal.any([
      controller.signal,
      ...(options.abortSignal ? [options.abortSignal] : []),
    ]);
    const parts = streamParts(await startChat(this.#model, body, { client: "", signal }));
    const { modelId } = this;
    const stream = new ReadableStream<LanguageModelV3StreamPart>({
      start(sink) {
        sink.enqueue({ type: "stream-start", warnings });
        sink.enqueue({ type: "response-metadata", id: randomUUID(), modelId, timestamp: new Date() });
      },
      async pull(sink) {
        try {
          const next = await parts.next();
          if (next.done) sink.close();
          else sink.enqueue(next.value);
        } catch (error) {
          sink.enqueue({ type: "error", error });
          sink.close();
        }
      },
      cancel: () => controller.abort(),
    });
    return { stream };
  }
}
