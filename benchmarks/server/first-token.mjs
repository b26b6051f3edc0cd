// What the server adds to the time to the first token: a chat of one short message to an engine that answers at once.
// node scripts/build.mjs && node benchmarks/server/first-token.mjs [model folder]
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createMetrics, createServerHandler, Grammars, listen } from "../../dist/server/index.js";
import { openTokenizer } from "../../dist/text/open-tokenizer.js";

const root = join(fileURLToPath(import.meta.url), "../../..");
const tokenizer = await openTokenizer(process.argv[2] ?? join(root, "models", "shakespeare-mla"));
const ROUNDS = 1500;
const WARM = 300;

const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: 1 };
const engine = {
  maxContext: 1024,
  async *generate() {
    yield { kind: "tokens", index: 0, text: "Ay", tokenIds: [5], logprobs: [] };
    yield { kind: "finish", index: 0, reason: "length", stop: null, usage };
  },
  statistics: () => ({}),
};
const defaults = { eosTokenIds: [1], doSample: false };
const model = {
  name: "instant",
  created: 0,
  engine,
  tokenizer,
  defaults,
  grammars: new Grammars(tokenizer, [1]),
};
const handler = createServerHandler({ model, metrics: createMetrics("instant"), version: "0" });
const server = await listen(handler, { host: "127.0.0.1", port: 0 });

/** Milliseconds to the first event of the stream; throws unless the stream is complete. */
async function firstEvent(send, round) {
  const messages = [{ role: "user", content: `Good morrow, ${round}!` }];
  const init = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages, max_tokens: 1, stream: true }),
  };
  const start = performance.now();
  const reader = (await send(init)).body.getReader();
  let next = await reader.read();
  const ms = performance.now() - start;
  let text = "";
  for (; !next.done; next = await reader.read()) text += Buffer.from(next.value);
  if (!text.includes('"content":"Ay"') || !text.endsWith("data: [DONE]\n\n"))
    throw new Error(`not complete: ${text}`);
  return ms;
}

const ways = {
  handler: (init) => handler.fetch(new Request("http://localhost/v1/chat/completions", init)),
  http: (init) => fetch(`${server.url}/v1/chat/completions`, init),
};
const times = { handler: [], http: [] };
for (let round = 0; round < ROUNDS; round++) {
  for (const [way, send] of Object.entries(ways)) times[way].push(await firstEvent(send, round));
}
server.cut();
await server.close();

const at = (values, share) => {
  const sorted = values.slice(WARM).sort((a, b) => a - b);
  return Number(sorted[Math.floor(share * (sorted.length - 1))].toFixed(3));
};
const figures = Object.entries(times).map(([way, values]) => [
  way,
  { p50: at(values, 0.5), p99: at(values, 0.99) },
]);
console.log("Milliseconds to the first event; http has the client's own time in it, in the same process.");
console.log(JSON.stringify(Object.fromEntries(figures)));
