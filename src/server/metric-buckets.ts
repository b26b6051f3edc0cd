const firstTokenBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
  2560,
];
const tokenBuckets = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const requestBuckets = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];
const sequenceBuckets = [1, 2, 5, 10, 20];
const countBuckets = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000];

/** Histograms of seconds: vLLM's names and buckets, with one finer bucket than its 10 ms between tokens. */
export const durationHistograms = {
  firstToken: {
    name: "vllm:time_to_first_token_seconds",
    help: "From the request to its first token.",
    buckets: firstTokenBuckets,
  },
  betweenTokens: {
    name: "vllm:inter_token_latency_seconds",
    help: "Between two tokens of a sequence.",
    buckets: [0.0025, 0.005, ...tokenBuckets],
  },
  perToken: {
    name: "vllm:request_time_per_output_token_seconds",
    help: "Mean time between the tokens of a sequence.",
    buckets: [0.0025, 0.005, ...tokenBuckets],
  },
  total: {
    name: "vllm:e2e_request_latency_seconds",
    help: "From the request to its end.",
    buckets: requestBuckets,
  },
  queue: {
    name: "vllm:request_queue_time_seconds",
    help: "From the request to its first step.",
    buckets: requestBuckets,
  },
  inference: {
    name: "vllm:request_inference_time_seconds",
    help: "From the first step to the end.",
    buckets: requestBuckets,
  },
  prefill: {
    name: "vllm:request_prefill_time_seconds",
    help: "From the first step to the first token.",
    buckets: requestBuckets,
  },
  decode: {
    name: "vllm:request_decode_time_seconds",
    help: "From the first token to the last.",
    buckets: requestBuckets,
  },
} as const;

/** Histograms of counts: tokens, and a request's sequences. */
export const tokenHistograms = {
  step: { name: "vllm:iteration_tokens_total", help: "Tokens of a step.", buckets: countBuckets },
  prompt: { name: "vllm:request_prompt_tokens", help: "Prompt tokens of a sequence.", buckets: countBuckets },
  completion: {
    name: "vllm:request_generation_tokens",
    help: "Output tokens of a sequence.",
    buckets: countBuckets,
  },
  longest: {
    name: "vllm:request_max_num_generation_tokens",
    help: "Output tokens of a request's longest sequence.",
    buckets: countBuckets,
  },
  asked: {
    name: "vllm:request_params_max_tokens",
    help: "Output tokens that a request allowed, where it said so.",
    buckets: countBuckets,
  },
  sequences: { name: "vllm:request_params_n", help: "Sequences of a request.", buckets: sequenceBuckets },
} as const;
