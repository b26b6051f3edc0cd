import { renderChat } from "flashmla";
import type { OpenModel } from "./open-model.ts";
import type { FromWorker, GenerateRequest, GenerationState } from "./protocol.ts";

function promptIds({ tokenizer }: OpenModel, { prompt, asChat }: GenerateRequest): Int32Array {
  if (!asChat || tokenizer.chat === undefined) return tokenizer.encode(prompt);
  const messages = [{ role: "user", content: prompt }];
  const text = renderChat(tokenizer.chat, { messages, addGenerationPrompt: true });
  return tokenizer.encode(text, { addSpecialTokens: false });
}

/** Runs a request and tells of every token as it comes. A signal that aborts ends it as stopped. */
export async function generate(
  model: OpenModel,
  request: GenerateRequest,
  signal: AbortSignal,
  tell: (message: FromWorker) => void,
): Promise<void> {
  const { engine, facts } = model;
  const ids = promptIds(model, request);
  const { temperature, topK, topP, seed } = request;
  const begin = performance.now();
  let first: number | null = null;
  let last = begin;
  let outputTokens = 0;
  let cachedTokens: number | null = null;
  let reason = "stopped by you";
  let pages = { usedPages: 0, reusablePages: 0 };
  const state = (): GenerationState => {
    const firstTokenMs = first === null ? null : first - begin;
    const decodeMs = first === null ? 0 : last - first;
    const counts = { promptTokens: ids.length, outputTokens, cachedTokens };
    return { ...counts, ...pages, firstTokenMs, decodeMs };
  };
  const maxTokens = Math.max(1, Math.min(request.maxTokens, facts.maxContext - ids.length));
  try {
    const sampling = { temperature, topK, topP, ...(seed === null ? {} : { seed }) };
    for await (const event of engine.generate({ promptIds: ids, maxTokens, signal, ...sampling })) {
      if (event.kind === "finish") {
        reason = event.reason === "length" ? "up to the limit of tokens" : "then the text ends";
        cachedTokens = event.usage.cachedTokens;
        continue;
      }
      if (event.tokenIds.length > 0) {
        last = performance.now();
        first ??= last;
        outputTokens += event.tokenIds.length;
      }
      // The picture stays as it was at the last token, although the pages are free once the text has ended.
      const { usedPages, reusablePages } = engine.statistics();
      if (usedPages > 0) pages = { usedPages, reusablePages };
      tell({ kind: "tokens", text: event.text, state: state() });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  tell({ kind: "finished", reason, state: state() });
}
