// flashmla's CPU device: one process, one measurement, one JSON line, as llama.mjs does for llama.cpp.
//   node flashmla.mjs MODEL_FOLDER THREADS PREFILL CACHED STEPS CACHE_DTYPE
import { openDevice } from "../../../dist/device/open.js";
import { Engine } from "../../../dist/engine/engine.js";
import { openLanguageModel } from "../../../dist/engine/language-model.js";
import { median, tokenSequence } from "./sequence.mjs";

const [folder, threadsText, prefillText, cachedText, stepsText, cacheDtype] = process.argv.slice(2);
const [threads, prefill, cached, steps] = [threadsText, prefillText, cachedText, stepsText].map(Number);

const device = await openDevice({ kind: "cpu", threads });
const maxContext = Math.max(prefill, cached) + steps + 64;
const model = await openLanguageModel(folder, { device, cacheDtype, maxContext });
const vocabulary = model.config.vocabSize;

async function withEngine(prefixReuse, work) {
  const engine = new Engine({ runner: model.runner, tokenizer: null, eosTokenIds: [], prefixReuse });
  const result = await work(engine);
  await engine.close();
  return result;
}

async function* generate(engine, tokens, maxTokens, logprobs = null) {
  const request = { promptIds: tokenSequence(tokens, vocabulary), maxTokens, temperature: 0, logprobs };
  for await (const event of engine.generate(request)) if (event.kind === "tokens") yield event;
}

/** Without prefix reuse: each prefill is to be a whole one. */
const prefillSpeed = () =>
  withEngine(false, async (engine) => {
    const times = [];
    for (let run = 0; run < 3; run++) {
      const start = performance.now();
      for await (const _ of generate(engine, prefill, 1)) times.push(performance.now() - start);
    }
    return (prefill / median(times)) * 1000;
  });

/** First the ids with how far each is ahead of the second likeliest, then the times, over the prompt's pages found again. */
const decodeTimes = () =>
  withEngine(true, async (engine) => {
    const greedy = [];
    const margins = [];
    for await (const { tokenIds, logprobs } of generate(engine, cached, 16, 2)) {
      greedy.push(...tokenIds);
      margins.push(...logprobs.map(({ top }) => top[0].logprob - top[1].logprob));
    }
    const times = [];
    let last = 0;
    for await (const _ of generate(engine, cached, steps + 1)) {
      const now = performance.now();
      if (last > 0) times.push(now - last);
      last = now;
    }
    return { milliseconds: median(times), greedy, margins };
  });

const tokensPerSecond = prefill > 0 ? await prefillSpeed() : null;
const decode = await decodeTimes();
const { weightBytes } = model;
const cacheBytes = model.runner.pool.bytes;
const peakBytes = process.resourceUsage().maxRSS * 1024;
console.log(
  JSON.stringify({
    prefillTokensPerSecond: tokensPerSecond,
    cached,
    ...decode,
    weightBytes,
    cacheBytes,
    peakBytes,
  }),
);
await device.close();
