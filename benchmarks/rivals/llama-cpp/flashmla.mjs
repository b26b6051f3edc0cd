// flashmla's CPU device: one process, one measurement, one JSON line, as llama.mjs does for llama.cpp.
//   node flashmla.mjs MODEL_FOLDER THREADS PREFILL CACHED STEPS
import { openDevice } from "../../../dist/device/open.js";
import { Engine } from "../../../dist/engine/engine.js";
import { openLanguageModel } from "../../../dist/engine/language-model.js";
import { median, tokenSequence } from "./sequence.mjs";

const [folder, threadsText, prefillText, cachedText, stepsText] = process.argv.slice(2);
const [threads, prefill, cached, steps] = [threadsText, prefillText, cachedText, stepsText].map(Number);

const device = await openDevice({ kind: "cpu", threads });
const maxContext = Math.max(prefill, cached) + steps + 64;
const model = await openLanguageModel(folder, { device, cacheDtype: "bf16", maxContext });
const vocabulary = model.config.vocabSize;
// Without prefix reuse: each prefill is to be a whole one.
const engine = new Engine({ runner: model.runner, tokenizer: null, eosTokenIds: [], prefixReuse: false });

async function* generate(tokens, maxTokens) {
  const request = { promptIds: tokenSequence(tokens, vocabulary), maxTokens, temperature: 0 };
  for await (const event of engine.generate(request)) if (event.kind === "tokens") yield* event.tokenIds;
}

async function prefillSpeed() {
  const times = [];
  for (let run = 0; run < 3; run++) {
    const start = performance.now();
    for await (const _ of generate(prefill, 1)) times.push(performance.now() - start);
  }
  return (prefill / median(times)) * 1000;
}

async function decodeTimes() {
  const times = [];
  const greedy = [];
  let last = 0;
  for await (const id of generate(cached, steps + 1)) {
    const now = performance.now();
    if (last > 0) times.push(now - last);
    last = now;
    greedy.push(id);
  }
  return { milliseconds: median(times), greedy: greedy.slice(0, 16) };
}

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
await engine.close();
await device.close();
