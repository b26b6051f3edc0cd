// What many users of `flashmla serve` get together, beside one: a load on a server in a process of its own, for each number of
// clients in turn, several rounds. The clients take processor time of the same machine.
// node scripts/build.mjs && node benchmarks/server/concurrency.mjs [model folder] [--out results.json]
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { describeCommit, describeMachine } from "../../dist/bench/machine.js";
import { makeRequests, runLoad } from "../../dist/bench/serve/load.js";
import { reportLoad } from "../../dist/bench/serve/serve-report.js";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: "string" } },
});
const cli = join(fileURLToPath(import.meta.url), "../../../dist/cli/main.js");
const CLIENTS = [1, 8, 32];
const ROUNDS = 3;
const OUTPUT = 128;

async function startServer() {
  const parameters = [cli, "serve", ...positionals, "--port", "0", "--log-level", "info"];
  const env = { ...process.env, FLASHMLA_API_KEY: "" };
  const child = spawn(process.execPath, parameters, { env, stdio: ["ignore", "pipe", "inherit"] });
  process.once("exit", () => child.kill("SIGKILL"));
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
  let text = "";
  const url = await new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the server ended with exit code ${code}`)));
    child.stdout.on("data", (bytes) => {
      text += bytes;
      const address = /"url":"(http:[^"]+)"/.exec(text)?.[1];
      if (address) resolve(address);
    });
  });
  return { child, url };
}

const { child, url } = await startServer();
const { data } = await (await fetch(`${url}/v1/models`)).json();
const endpoint = { url, model: data[0].id, apiKey: null };
const rates = new Map(CLIENTS.map((clients) => [clients, []]));
for (let round = 0; round <= ROUNDS; round++) {
  for (const clients of CLIENTS) {
    const load = { requests: 2 * clients, inputTokens: 16, prefixTokens: 0, outputTokens: OUTPUT };
    const options = { ...load, rate: Number.POSITIVE_INFINITY, concurrency: clients, seed: round };
    const result = await runLoad(endpoint, makeRequests(options, 2), options);
    if (result.failures.length > 0) throw new Error(result.failures[0].error);
    // The first round warms the code up.
    const { outputTokensPerSecond } = reportLoad(result, {});
    console.error(`round ${round}, ${clients} clients: ${outputTokensPerSecond.toFixed(0)} tokens/s`);
    if (round > 0) rates.get(clients).push(outputTokensPerSecond);
  }
}
child.removeAllListeners("exit");
child.kill("SIGTERM");

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const loads = CLIENTS.map((clients) => {
  return { clients, tokensPerSecond: median(rates.get(clients)), rounds: rates.get(clients) };
});
for (const { clients, tokensPerSecond } of loads) {
  const times = (tokensPerSecond / loads[0].tokensPerSecond).toFixed(2);
  console.log(`${clients} clients: ${tokensPerSecond.toFixed(0)} tokens/s, × ${times}`);
}
const result = { machine: describeMachine(), commit: describeCommit(), model: endpoint.model, loads };
if (flags.out) writeFileSync(flags.out, `${JSON.stringify(result, null, 1)}\n`);
console.log(JSON.stringify(result));
