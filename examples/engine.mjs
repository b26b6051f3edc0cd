// The engine in this process: eight texts at once over one paged cache. node examples/engine.mjs
import { fileURLToPath } from "node:url";
import { Engine, openDevice, openLanguageModel, openTokenizer } from "flashmla";

const folder = process.argv[2] ?? fileURLToPath(new URL("../models/shakespeare-mla", import.meta.url));
const device = await openDevice();
const tokenizer = await openTokenizer(folder);
const model = await openLanguageModel(folder, { device, maxDecodeRows: 8, cacheTokens: 8192 });
const { runner, config } = model;
const engine = new Engine({ runner, tokenizer, eosTokenIds: config.eosTokenIds });

async function write(name, seed) {
  let text = "";
  const promptIds = tokenizer.encode(`${name}:\n`);
  for await (const event of engine.generate({ promptIds, seed, maxTokens: 40, temperature: 0.8 })) {
    if (event.kind === "tokens") text += event.text;
    else
      console.log(
        `${name} (${event.reason}, ${event.usage.completionTokens} tokens): ${JSON.stringify(text)}`,
      );
  }
}

const start = performance.now();
const names = ["ROMEO", "JULIET", "NURSE", "MERCUTIO", "TYBALT", "BENVOLIO", "PARIS", "HAMLET"];
await Promise.all(names.map(write));
const { completionTokens, steps } = engine.statistics();
const seconds = (performance.now() - start) / 1000;
console.log(
  `${completionTokens} tokens in ${steps} steps, ${(completionTokens / seconds).toFixed(0)} tokens/s`,
);

await engine.close();
model.close();
await device.close();
