import { renderChat } from "flashmla";
import type { OpenModel } from "./open-model.ts";
import type { FromWorker, GenerateRequest, GenerationState } from "./protocol.ts";

function promptIds({ tokenizer }: OpenModel, { prompt, asChat }: GenerateRequest): Int32Array {
  if (!asChat || tokenizer.chat === undefined) return tokenizer.encode(prompt);
  const messages = [{ role: "user", content: prompt }];
  const text = renderChat(tokenizer.chat, { messages, addGenerationPrompt: true });
  return tokenizer.encode(text, { addSpecialTokens: false });
}

/** What a request has made so far; it outlives the device that it was made on. */
export interface Written {
  /** Ids of the output. */
  readonly ids: number[];
}

/**
 * Runs a request and tells of every token as it comes; it goes on after what `written` holds, to which it adds. A signal that
 * aborts ends it as stopped.
 */
export async function generate(
  model: OpenModel,
  request: GenerateRequest,
  {
    signal,
    tell,
    written,
  }: {
    readonly signal: AbortSignal;
    readonly tell: (message: FromWorker) => void;
    readonly written: Written;
  },
): Promise<void> {
  const { engine, facts } = model;
  const prompt = promptIds(model, request);
  const ids = [...prompt, ...written.ids];
  const { temperature, topK, topP, seed } = request;
  const begin = performance.now();
  let first: number | null = null;
  let last = begin;
  const earlier = written.ids.length;
  let cachedTokens: number | null = null;
  let reason = "stopped by you";
  let pages = { usedPages: 0, reusablePages: 0 };
  const state = (): GenerationState => {
    const firstTokenMs = first === null ? null : first - begin;
    const decodeMs = first === null ? 0 : last - first;
    const counts = { promptTokens: prompt.length, outputTokens: written.ids.length, cachedTokens };
    return { ...counts, ...pages, firstTokenMs, decodeMs, timedTokens: written.ids.length - earlier };
  };
  const maxTokens = Math.max(1, Math.min(request.maxTokens - earlier, facts.maxContext - ids.length));
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
        written.ids.push(...event.tokenIds);
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
