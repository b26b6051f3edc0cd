// llama.cpp through node-llama-cpp: one process, one measurement, one JSON line.
//   node llama.mjs MODEL.gguf THREADS PREFILL CACHED STEPS
import { getLlama } from "node-llama-cpp";
import { median, tokenSequence } from "./sequence.mjs";

const [path, threadsText, prefillText, cachedText, stepsText] = process.argv.slice(2);
const [threads, prefill, cached, steps] = [threadsText, prefillText, cachedText, stepsText].map(Number);
const vocabulary = 32000;

const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: threads });
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const contextSize = Math.max(prefill, cached) + steps + 64;
const context = await model.createContext({
  contextSize,
  batchSize: 512,
  threads: { ideal: threads, min: threads },
  flashAttention: true,
});
const sequence = context.getSequence();

async function prefillSpeed() {
  const times = [];
  for (let run = 0; run < 3; run++) {
    await sequence.clearHistory();
    const start = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(tokenSequence(prefill, vocabulary));
    times.push(performance.now() - start);
  }
  return (prefill / median(times)) * 1000;
}

async function decodeTimes() {
  await sequence.clearHistory();
  const ids = tokenSequence(cached, vocabulary);
  const times = [];
  const greedy = [];
  let last = 0;
  for await (const id of sequence.evaluate(ids, { temperature: 0 })) {
    const now = performance.now();
    if (last > 0) times.push(now - last);
    last = now;
    greedy.push(id);
    if (greedy.length > steps) break;
  }
  return { milliseconds: median(times), greedy: greedy.slice(0, 16) };
}

const tokensPerSecond = prefill > 0 ? await prefillSpeed() : null;
const decode = await decodeTimes();
console.log(JSON.stringify({ prefillTokensPerSecond: tokensPerSecond, cached, ...decode }));
process.exit(0);
