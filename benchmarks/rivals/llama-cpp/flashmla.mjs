// flashmla's CPU device, as llama.mjs has llama.cpp: a process that measures what standard input asks for.
//   node flashmla.mjs MODEL_FOLDER THREADS LONGEST_PROMPT STEPS CACHE_DTYPE
import { openDevice } from "../../../dist/device/open.js";
import { Engine } from "../../../dist/engine/engine.js";
import { openLanguageModel } from "../../../dist/engine/language-model.js";
import { median, serve, tokenSequence } from "./sequence.mjs";

const [folder, threadsText, longestText, stepsText, cacheDtype] = process.argv.slice(2);
const [threads, longest, steps] = [threadsText, longestText, stepsText].map(Number);

const device = await openDevice({ kind: "cpu", threads });
const model = await openLanguageModel(folder, { device, cacheDtype, maxContext: longest + steps + 64 });
const vocabulary = model.config.vocabSize;
const options = { runner: model.runner, tokenizer: null, eosTokenIds: [] };
let engine;
let ids = {};

async function* generate(tokens, maxTokens, logprobs = null) {
  const request = { promptIds: tokenSequence(tokens, vocabulary), maxTokens, temperature: 0, logprobs };
  for await (const event of engine.generate(request)) if (event.kind === "tokens") yield event;
}

async function renew(prefixReuse) {
  await engine?.close();
  engine = new Engine({ ...options, prefixReuse });
}

/** Without prefix reuse: each prefill is to be a whole one. */
async function prefill(tokens) {
  await renew(false);
  const start = performance.now();
  let seconds = 0;
  for await (const _ of generate(tokens, 1)) seconds = (performance.now() - start) / 1000;
  return { tokensPerSecond: tokens / seconds };
}

/** The prompt, whose pages later requests find again; and 16 ids with how far each is ahead of the second likeliest. */
async function fill(tokens) {
  await renew(true);
  const greedy = [];
  const margins = [];
  for await (const event of generate(tokens, 16, 2)) {
    greedy.push(...event.tokenIds);
    margins.push(...event.logprobs.map(({ top }) => top[0].logprob - top[1].logprob));
  }
  ids = { greedy, margins };
  return {};
}

async function decode(tokens) {
  const times = [];
  let last = 0;
  for await (const _ of generate(tokens, steps + 1)) {
    const now = performance.now();
    if (last > 0) times.push(now - last);
    last = now;
  }
  const memory = {
    weightBytes: model.weightBytes,
    cacheBytes: model.runner.pool.bytes,
    peakBytes: process.resourceUsage().maxRSS * 1024,
  };
  return { milliseconds: median(times), ...ids, memory };
}

await serve({ prefill, fill, decode });
await engine?.close();
await device.close();
