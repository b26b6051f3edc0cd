import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { PAGE_SIZE } from "../engine/cache-footprint.ts";
import type { GenerationEngine } from "../engine/engine-types.ts";
import type { EngineObserver, EngineStatistics } from "../engine/statistics.ts";
import { durationHistograms, tokenHistograms } from "./metric-buckets.ts";

const gauges: Record<string, [help: string, value: (now: EngineStatistics) => number]> = {
  "vllm:num_requests_running": ["Sequences in the batch.", ({ running }) => running],
  "vllm:num_requests_waiting": ["Sequences in the queue.", ({ waiting }) => waiting],
  "vllm:kv_cache_usage_perc": [
    "Share of the cache's pages in use; 1 is all of them.",
    ({ usedPages, pageCount }) => usedPages / pageCount,
  ],
  "flashmla:num_sequences_paused": ["Sequences held back by slow readers.", ({ paused }) => paused],
  "flashmla:cache_pages": ["Pages of the cache.", ({ pageCount }) => pageCount],
  "flashmla:cache_pages_reusable": [
    "Free pages that hold a prompt which may come again.",
    ({ reusablePages }) => reusablePages,
  ],
};

const counters: Record<string, [help: string, value: (now: EngineStatistics) => number]> = {
  "vllm:num_preemptions_total": ["Sequences put back into the queue.", ({ preemptions }) => preemptions],
  "vllm:prompt_tokens_total": ["Prompt tokens.", ({ promptTokens }) => promptTokens],
  "vllm:generation_tokens_total": ["Output tokens.", ({ completionTokens }) => completionTokens],
  "vllm:prefix_cache_queries_total": ["Prompt tokens looked up.", ({ promptTokens }) => promptTokens],
  "vllm:prefix_cache_hits_total": ["Prompt tokens found in the cache.", ({ cachedTokens }) => cachedTokens],
  "vllm:spec_decode_num_drafts_total": ["Checks of drafted tokens.", ({ drafts }) => drafts],
  "vllm:spec_decode_num_draft_tokens_total": ["Tokens drafted.", ({ draftedTokens }) => draftedTokens],
  "vllm:spec_decode_num_accepted_tokens_total": [
    "Drafted tokens that were right.",
    ({ acceptedTokens }) => acceptedTokens,
  ],
  "flashmla:steps_total": ["Steps.", ({ steps }) => steps],
  "flashmla:failed_steps_total": ["Steps that failed.", ({ failedSteps }) => failedSteps],
  "flashmla:page_copies_total": ["Pages copied on write.", ({ pageCopies }) => pageCopies],
};

/** A server's metrics, under the names and with the labels of vLLM where it has them. */
export interface Metrics {
  readonly registry: Registry;
  /** For `EngineOptions.observer`. */
  readonly observer: EngineObserver;
  /** Reads the engine's totals whenever the metrics are asked for. */
  watch(engine: Pick<GenerationEngine, "statistics">): void;
}

function watchTotals(registry: Registry, engine: Pick<GenerationEngine, "statistics">): void {
  const registers = [registry];
  for (const [name, [help, value]] of Object.entries(gauges)) {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value(engine.statistics()));
      },
    });
  }
  for (const [name, [help, value]] of Object.entries(counters)) {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(value(engine.statistics()));
      },
    });
  }
  new Gauge({
    name: "vllm:cache_config_info",
    help: "Pages of the cache and their tokens, as labels; always 1.",
    labelNames: ["block_size", "num_gpu_blocks"],
    registers,
  }).set({ block_size: PAGE_SIZE, num_gpu_blocks: engine.statistics().pageCount }, 1);
  new Counter({
    name: "vllm:request_success_total",
    help: "Sequences that ended, by reason.",
    labelNames: ["finished_reason"],
    registers,
    collect() {
      this.reset();
      for (const [finished_reason, count] of Object.entries(engine.statistics().finished)) {
        this.inc({ finished_reason }, count);
      }
    },
  });
}

/** Makes the metrics of one model. */
export function createMetrics(modelName: string): Metrics {
  const registry = new Registry();
  registry.setDefaultLabels({ model_name: modelName, engine: "0" });
  const histogram = (name: string, help: string, buckets: readonly number[]) =>
    new Histogram({ name, help, buckets: [...buckets], registers: [registry] });
  const durations = Object.fromEntries(
    Object.entries(durationHistograms).map(([key, { name, help, buckets }]) => [
      key,
      histogram(name, help, buckets),
    ]),
  ) as Record<keyof typeof durationHistograms, Histogram>;
  const tokens = Object.fromEntries(
    Object.entries(tokenHistograms).map(([key, { name, help, buckets }]) => [
      key,
      histogram(name, help, buckets),
    ]),
  ) as Record<keyof typeof tokenHistograms, Histogram>;
  return {
    registry,
    observer: observerOf(durations, tokens),
    watch: (engine) => watchTotals(registry, engine),
  };
}

function observerOf(
  durations: Record<keyof typeof durationHistograms, Histogram>,
  tokens: Record<keyof typeof tokenHistograms, Histogram>,
): EngineObserver {
  return {
    firstToken: (seconds) => durations.firstToken.observe(seconds),
    nextTokens: (seconds, count) => {
      for (let i = 0; i < count; i++) durations.betweenTokens.observe(seconds / count);
    },
    stepEnd: ({ decodeRows, prefillTokens }) => tokens.step.observe(decodeRows + prefillTokens),
    requestEnd({ n, maxTokens, longestOutput }) {
      tokens.sequences.observe(n);
      tokens.longest.observe(longestOutput);
      if (maxTokens !== null) tokens.asked.observe(maxTokens);
    },
    sequenceEnd(timings) {
      const { queueSeconds, firstTokenSeconds, decodeSeconds, completionTokens } = timings;
      durations.total.observe(timings.totalSeconds);
      tokens.prompt.observe(timings.promptTokens);
      tokens.completion.observe(completionTokens);
      if (queueSeconds === null) return;
      durations.queue.observe(queueSeconds);
      durations.inference.observe(timings.totalSeconds - queueSeconds);
      if (firstTokenSeconds === null) return;
      durations.prefill.observe(firstTokenSeconds - queueSeconds);
      durations.decode.observe(decodeSeconds);
      if (completionTokens > 1) durations.perToken.observe(decodeSeconds / (completionTokens - 1));
    },
  };
}
