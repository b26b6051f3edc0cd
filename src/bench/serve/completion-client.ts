import { errorMessage } from "../../base/errors.ts";

/** An OpenAI endpoint under test. */
export interface Endpoint {
  /** Such as `http://127.0.0.1:8000`. */
  readonly url: string;
  readonly model: string;
  readonly apiKey: string | null;
}

/** One request of a load. */
export interface LoadRequest {
  readonly prompt: string;
  readonly maxTokens: number;
}

/** How a request fared; times in milliseconds from when it was sent. */
export interface RequestResult {
  /** When it was sent, as `performance.now()` tells. */
  readonly sentAt: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly firstTokenMs: number;
  /** Between consecutive pieces of output. */
  readonly betweenMs: readonly number[];
  readonly totalMs: number;
}

/** A request that got no complete answer. */
export interface FailedRequest {
  readonly error: string;
}

interface Chunk {
  readonly error?: { readonly message?: string };
  readonly choices?: readonly { readonly text?: string; readonly finish_reason?: string | null }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
}

async function* chunksOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Chunk, void> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of body) {
    const events = (text + decoder.decode(bytes, { stream: true })).split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const data = event.replace(/^data: ?/, "");
      if (data !== "[DONE]") yield JSON.parse(data) as Chunk;
    }
  }
}

async function post(endpoint: Endpoint, { prompt, maxTokens }: LoadRequest): Promise<Response> {
  const authorization = endpoint.apiKey === null ? {} : { authorization: `Bearer ${endpoint.apiKey}` };
  const response = await fetch(`${endpoint.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...authorization },
    body: JSON.stringify({
      model: endpoint.model,
      prompt,
      max_tokens: maxTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (!response.ok) throw new Error(`${response.status}: ${(await response.text()).slice(0, 200)}`);
  return response;
}

/** Sends a streaming completion and times what comes back. Resolves with the error when it fails. */
export async function timeRequest(
  endpoint: Endpoint,
  request: LoadRequest,
): Promise<RequestResult | FailedRequest> {
  const start = performance.now();
  const times: number[] = [];
  let usage: Chunk["usage"] = null;
  try {
    const response = await post(endpoint, request);
    if (response.body === null) throw new Error("an answer without a body");
    for await (const chunk of chunksOf(response.body)) {
      if (chunk.error !== undefined) throw new Error(chunk.error.message ?? "an error event");
      usage = chunk.usage ?? usage;
      if (chunk.choices?.some(({ text, finish_reason }) => text !== "" || finish_reason === null)) {
        times.push(performance.now() - start);
      }
    }
  } catch (error) {
    return { error: errorMessage(error) };
  }
  if (usage === null || times.length === 0) return { error: "the stream ended without output and usage" };
  return {
    sentAt: start,
    inputTokens: usage.prompt_tokens,
    outputTokens: usage.completion_tokens,
    firstTokenMs: times[0]!,
    betweenMs: times.slice(1).map((time, i) => time - times[i]!),
    totalMs: times.at(-1)!,
  };
}
