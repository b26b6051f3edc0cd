// What the engine costs and gains on one model: batching, bookkeeping, prefix reuse, guesses. On the CPU also what part of the
// processor's multiply-adds a step uses, measured in the same rounds: a batch can gain no more than one row leaves unused.
// node scripts/build.mjs && node benchmarks/engine/engine.mjs [model folder] [--out results.json]
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createCeilingMeter } from "../../dist/bench/ceilings.js";
import { describeCommit, describeMachine } from "../../dist/bench/machine.js";
import { openDevice } from "../../dist/device/open.js";
import { Engine } from "../../dist/engine/engine.js";
import { openLanguageModel } from "../../dist/engine/language-model.js";
import { openTokenizer } from "../../dist/text/open-tokenizer.js";

const root = join(fileURLToPath(import.meta.url), "../../..");
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: "string" } },
});
const folder = positionals[0] ?? join(root, "models", "shakespeare-mla");
const BATCHES = [1, 8, 32, 64];
const ROUNDS = 7;
const OUTPUT = 48;

const tokenizer = await openTokenizer(folder);
const device = await openDevice();
const model = await openLanguageModel(folder, {
  device,
  cacheTokens: 64 * 1024,
  maxDecodeRows: 64,
  maxChunkTokens: 256,
  tokenizerVocab: tokenizer.vocabSize,
});

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const encode = (text) => Array.from(tokenizer.encode(text, { addSpecialTokens: false }));

function createEngine(options = {}) {
  const steps = [];
  const observer = { stepEnd: (step) => steps.push(step) };
  const engine = new Engine({ runner: model.runner, tokenizer, eosTokenIds: [], observer, ...options });
  return { engine, steps };
}

/** Ids, milliseconds to the first one and to the last. */
async function read(engine, request) {
  const start = performance.now();
  const ids = [];
  let firstMs = 0;
  for await (const event of engine.generate({ temperature: 0, ...request })) {
    if (event.kind !== "tokens") continue;
    if (ids.length === 0) firstMs = performance.now() - start;
    ids.push(...event.tokenIds);
  }
  return { ids, firstMs, totalMs: performance.now() - start };
}

async function decodeSteps(batch) {
  const { engine, steps } = createEngine();
  const request = (seed) => ({ promptIds: encode("ROMEO:\n"), maxTokens: OUTPUT, temperature: 0.8, seed });
  await Promise.all(Array.from({ length: batch }, (_, seed) => read(engine, request(seed))));
  return steps.filter(({ decodeRows, prefillTokens }) => decodeRows === batch && prefillTokens === 0);
}

/** FLOPs of one row of a step: each weight once (16 bits), and attention over `length` cached tokens. */
function rowFlops(length) {
  const { attention, numLayers } = model.config;
  const { heads, kvLoraRank, qkRopeHeadDim } = attention;
  return model.weightBytes + 2 * numLayers * heads * (2 * kvLoraRank + qkRopeHeadDim) * length;
}

/** Multiply-adds a second of this device, times 2; null where there is no such measurement. */
function createPeakMeter() {
  if (device.kind !== "cpu") return { measure: () => null, free: () => {} };
  const meter = createCeilingMeter(device);
  return { measure: () => meter.measure(), free: () => meter.free() };
}

async function batching() {
  const steps = new Map(BATCHES.map((batch) => [batch, []]));
  const meter = createPeakMeter();
  const peaks = [];
  await decodeSteps(64);
  for (let round = 0; round < ROUNDS; round++) {
    peaks.push(meter.measure());
    for (const batch of BATCHES) steps.get(batch).push(...(await decodeSteps(batch)));
  }
  meter.free();
  const peak = peaks[0] && median(peaks.map(({ flopsPerSecond }) => flopsPerSecond));
  const length = encode("ROMEO:\n").length + OUTPUT / 2;
  const batches = BATCHES.map((batch) => {
    const all = steps.get(batch);
    const runMs = 1000 * median(all.map(({ runSeconds }) => runSeconds));
    const ownMs = 1000 * median(all.map((step) => step.scheduleSeconds + step.postprocessSeconds));
    return {
      batch,
      runMs,
      ownMs,
      ownShare: ownMs / (runMs + ownMs),
      tokensPerSecond: (1000 * batch) / (runMs + ownMs),
      shareOfPeak: peak && (batch * rowFlops(length)) / (runMs / 1000) / peak,
    };
  });
  const bytesPerSecond = peaks[0] && median(peaks.map((one) => one.bytesPerSecond));
  return { batches, ceilings: peak && { flopsPerSecond: peak, bytesPerSecond } };
}

async function prefixReuse(tokens) {
  const text = encode("To be, or not to be, that is the question. ".repeat(tokens)).slice(0, tokens + ROUNDS);
  const [cold, warm] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    const shared = text.slice(round, round + tokens);
    const { engine } = createEngine();
    const alone = createEngine({ prefixReuse: false }).engine;
    const first = await read(engine, { promptIds: [...shared, 5], maxTokens: 4 });
    const second = await read(engine, { promptIds: [...shared, 9], maxTokens: 4 });
    const expected = await read(alone, { promptIds: [...shared, 9], maxTokens: 4 });
    if (second.ids.join() !== expected.ids.join()) throw new Error("a shared prefix changed the output");
    cold.push(first.firstMs);
    warm.push(second.firstMs);
  }
  const [coldMs, warmMs] = [median(cold), median(warm)];
  return { tokens, coldMs, warmMs, gain: coldMs / warmMs };
}

async function guesses(draftTokens) {
  const promptIds = encode("JULIET:\nO Romeo, Romeo, wherefore art thou Romeo?\n\n".repeat(6));
  const [plain, drafted] = [[], []];
  let statistics;
  for (let round = 0; round < ROUNDS; round++) {
    const without = await read(createEngine().engine, { promptIds, maxTokens: 200 });
    const { engine } = createEngine({ draftTokens });
    const withGuesses = await read(engine, { promptIds, maxTokens: 200 });
    if (without.ids.join() !== withGuesses.ids.join()) throw new Error("guesses changed the output");
    plain.push(without.totalMs);
    drafted.push(withGuesses.totalMs);
    statistics = engine.statistics();
  }
  const { acceptedTokens, draftedTokens, steps } = statistics;
  return {
    draftTokens,
    acceptance: acceptedTokens / draftedTokens,
    steps,
    gain: median(plain) / median(drafted),
  };
}

const result = {
  model: folder.split("/").at(-1),
  machine: describeMachine(),
  commit: describeCommit(),
  device: device.kind,
  deviceName: device.name,
  computeUnits: device.limits.computeUnits,
  ...(await batching()),
  prefix: await prefixReuse(Math.min(1000, model.maxContext - 8)),
  guesses: [await guesses(2), await guesses(4)],
};
for (const { batch, runMs, ownMs, ownShare, tokensPerSecond, shareOfPeak } of result.batches) {
  const [run, own] = [runMs.toFixed(2), (ownMs * 1000).toFixed(0)];
  const times = (tokensPerSecond / result.batches[0].tokensPerSecond).toFixed(2);
  const share = `${(100 * ownShare).toFixed(2)} %`;
  const used = shareOfPeak ? `, ${(100 * shareOfPeak).toFixed(0)} % of the multiply-adds` : "";
  console.log(
    `batch ${batch}: step ${run} ms, of the engine's own ${own} µs (${share}); ` +
      `${tokensPerSecond.toFixed(0)} tokens/s, × ${times}${used}`,
  );
}
if (result.ceilings) {
  const { flopsPerSecond, bytesPerSecond } = result.ceilings;
  const most = (1 / result.batches[0].shareOfPeak).toFixed(2);
  console.log(
    `ceilings ${(flopsPerSecond / 1e9).toFixed(0)} GFLOPS, ${(bytesPerSecond / 1e9).toFixed(0)} GB/s: no batch can give more than × ${most}`,
  );
}
const { tokens, coldMs, warmMs, gain } = result.prefix;
console.log(
  `first token after ${tokens} tokens: ${coldMs.toFixed(1)} ms, again ${warmMs.toFixed(1)} ms, × ${gain.toFixed(1)}`,
);
for (const { draftTokens, acceptance, steps, gain: faster } of result.guesses) {
  const share = `${(100 * acceptance).toFixed(0)} %`;
  console.log(
    `${draftTokens} guesses on repetitive text: ${share} right, ${steps} steps for 200 tokens, × ${faster.toFixed(2)}`,
  );
}
if (flags.out) writeFileSync(flags.out, `${JSON.stringify(result, null, 1)}\n`);
console.log(JSON.stringify(result));
model.close();
await device.close();
