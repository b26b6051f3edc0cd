// llama.cpp through node-llama-cpp, as flashmla.mjs has flashmla: a process that measures what standard input asks for.
//   node llama.mjs MODEL.gguf THREADS LONGEST_PROMPT STEPS
import { getLlama } from "node-llama-cpp";
import { median, serve, tokenSequence } from "./sequence.mjs";

const [path, threadsText, longestText, stepsText] = process.argv.slice(2);
const [threads, longest, steps] = [threadsText, longestText, stepsText].map(Number);
const vocabulary = 32000;

const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: threads });
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const context = await model.createContext({
  contextSize: longest + steps + 64,
  batchSize: 512,
  threads: { ideal: threads, min: threads },
  flashAttention: true,
});
const sequence = context.getSequence();

async function prefill(tokens) {
  await sequence.clearHistory();
  const start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(tokenSequence(tokens, vocabulary));
  return { tokensPerSecond: (tokens / (performance.now() - start)) * 1000 };
}

/** All but the prompt's last token, which the first decode step brings. */
async function fill(tokens) {
  await sequence.clearHistory();
  await sequence.evaluateWithoutGeneratingNewTokens(tokenSequence(tokens, vocabulary).slice(0, -1));
  return {};
}

async function decode(tokens) {
  if (sequence.nextTokenIndex >= tokens) {
    await sequence.eraseContextTokenRanges([{ start: tokens - 1, end: sequence.nextTokenIndex }]);
  }
  const ids = tokenSequence(tokens, vocabulary).slice(-1);
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

await serve({ prefill, fill, decode });
process.exit(0);
