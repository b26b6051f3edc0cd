// The same MLA model through llama.cpp and flashmla, in alternating processes of one run.
//   npm start -- FOLDER [--threads 2] [--rounds 3] [--contexts 128,1024,4096,8192] [--prefill 512] [--out FILE]
// FOLDER holds hf/ and model-bf16.gguf of one seed.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median } from "./sequence.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    contexts: { type: "string", default: "128,1024,4096,8192" },
    prefill: { type: "string", default: "512" },
    steps: { type: "string", default: "24" },
    out: { type: "string" },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error("Give the folder that holds hf/ and model-bf16.gguf.");
  process.exit(1);
}

const rivals = {
  "llama.cpp": ["llama.mjs", join(folder, "model-bf16.gguf")],
  flashmla: ["flashmla.mjs", join(folder, "hf")],
};

function measure(rival, prefill, cached, steps) {
  const [script, model] = rivals[rival];
  const parameters = [join(here, script), model, flags.threads, prefill, cached, steps].map(String);
  const output = execFileSync(process.execPath, parameters, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 2 ** 24,
  });
  return JSON.parse(output.trim().split("\n").at(-1));
}

/** Both programs in turn, `rounds` times. */
function rounds(prefill, cached, steps) {
  const results = { "llama.cpp": [], flashmla: [] };
  for (let round = 0; round < Number(flags.rounds); round++) {
    for (const rival of Object.keys(rivals)) results[rival].push(measure(rival, prefill, cached, steps));
  }
  return results;
}

const middle = (results, field) => median(results.map((result) => result[field]));

console.error("Greedy ids after 16 tokens …");
const ids = Object.keys(rivals).map((rival) => measure(rival, 0, 16, 16).greedy);
if (JSON.stringify(ids[0]) !== JSON.stringify(ids[1])) {
  console.error(`The greedy ids differ, so no time counts:\n${ids.map((row) => row.join(" ")).join("\n")}`);
  process.exit(1);
}

const rows = [];
flags.contexts.split(",").forEach((text, index) => {
  const cached = Number(text);
  console.error(`${cached} cached tokens …`);
  const prefill = index === 0 ? Number(flags.prefill) : 0;
  const results = rounds(prefill, cached, Number(flags.steps));
  const [theirs, ours] = [results["llama.cpp"], results.flashmla];
  if (prefill > 0) {
    const [a, b] = [middle(theirs, "prefillTokensPerSecond"), middle(ours, "prefillTokensPerSecond")];
    rows.push({ work: `prefill ${prefill}`, unit: "tokens/s", llamaCpp: a, flashmla: b, timesFaster: b / a });
  }
  const [a, b] = [middle(theirs, "milliseconds"), middle(ours, "milliseconds")];
  const greedyEqual = JSON.stringify(theirs[0].greedy) === JSON.stringify(ours[0].greedy);
  const { weightBytes, cacheBytes } = ours[0];
  const peakBytes = Math.max(...ours.map((result) => result.peakBytes));
  const memory = { weightBytes, cacheBytes, peakBytes };
  rows.push({
    work: `decode at ${cached}`,
    unit: "ms",
    llamaCpp: a,
    flashmla: b,
    timesFaster: a / b,
    greedyEqual,
    memory,
  });
});

console.table(
  rows.map(({ work, unit, llamaCpp, flashmla, timesFaster }) => ({
    work,
    unit,
    "llama.cpp": llamaCpp.toFixed(1),
    flashmla: flashmla.toFixed(1),
    "times faster": timesFaster.toFixed(2),
  })),
);
const git = (...parameters) => execFileSync("git", parameters, { cwd: here, encoding: "utf8" }).trim();
const report = {
  name: "llama-cpp",
  date: new Date().toISOString(),
  commit: git("rev-parse", "HEAD"),
  machine: { cpu: cpus()[0].model.trim(), processors: cpus().length, node: process.version },
  threads: Number(flags.threads),
  rounds: Number(flags.rounds),
  greedyAfter16: ids[0],
  rows,
};
if (flags.out) {
  mkdirSync(dirname(flags.out), { recursive: true });
  writeFileSync(flags.out, `${JSON.stringify(report, null, 1)}\n`);
}
console.log(JSON.stringify(report));
