// The same MLA model through llama.cpp and flashmla, in alternating processes of one run.
//   npm start -- FOLDER [--threads 2] [--rounds 3] [--contexts 128,1024,4096,8192] [--prefill 512] [--cache f16]
//     [--out FILE] [--add]
// FOLDER holds hf/ and model-bf16.gguf of one seed. --add joins the rounds to those that FILE has of the same commit, so
// that a long comparison can be taken in parts.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { describeMachine } from "../../../dist/bench/machine.js";
import { median } from "./sequence.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    contexts: { type: "string", default: "128,1024,4096,8192" },
    prefill: { type: "string", default: "512" },
    steps: { type: "string", default: "48" },
    cache: { type: "string", default: "f16" },
    add: { type: "boolean", default: false },
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
  const parameters = [join(here, script), model, flags.threads, prefill, cached, steps, flags.cache].map(
    String,
  );
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

/**
 * Equal ids from the first on, and where they part, how far flashmla's id was ahead of the next (a difference of logits): two
 * roundings of one model part where that is small.
 */
function compareIds([theirs], [ours]) {
  const count = Math.min(theirs.greedy.length, ours.greedy.length);
  let equal = 0;
  while (equal < count && theirs.greedy[equal] === ours.greedy[equal]) equal++;
  return { equal, of: count, marginWhereTheyPart: equal < count ? ours.margins[equal] : null };
}

/** A row: every round's figure, their medians, and how many times faster flashmla is. */
function rowOf(work, unit, each, more) {
  const [theirs, ours] = [median(each.llamaCpp), median(each.flashmla)];
  const timesFaster = unit === "ms" ? theirs / ours : ours / theirs;
  return { work, unit, llamaCpp: theirs, flashmla: ours, timesFaster, each, ...more };
}

function measureContext(cached, prefill) {
  const results = rounds(prefill, cached, Number(flags.steps));
  const [theirs, ours] = [results["llama.cpp"], results.flashmla];
  const eachOf = (field) => ({
    llamaCpp: theirs.map((result) => result[field]),
    flashmla: ours.map((result) => result[field]),
  });
  const { weightBytes, cacheBytes } = ours[0];
  const memory = { weightBytes, cacheBytes, peakBytes: Math.max(...ours.map((result) => result.peakBytes)) };
  const more = { greedy: compareIds(theirs, ours), memory };
  const decode = rowOf(`decode at ${cached}`, "ms", eachOf("milliseconds"), more);
  if (prefill === 0) return [decode];
  return [rowOf(`prefill ${prefill}`, "tokens/s", eachOf("prefillTokensPerSecond")), decode];
}

const git = (...parameters) => execFileSync("git", parameters, { cwd: here, encoding: "utf8" }).trim();
const commit = git("rev-parse", "HEAD");

/** With --add, what FILE has of this commit. */
function readEarlier() {
  if (!flags.add || !existsSync(flags.out)) return undefined;
  const earlier = JSON.parse(readFileSync(flags.out, "utf8"));
  if (earlier.commit === commit) return earlier;
  console.error(`${flags.out} belongs to the commit ${earlier.commit}; its rows are not kept.`);
  return undefined;
}

/** Both programs' ids after 16 tokens, or an exit when they differ: then no time counts. */
function greedyAfter16() {
  console.error("Greedy ids after 16 tokens …");
  const [theirs, ours] = Object.keys(rivals).map((rival) => measure(rival, 0, 16, 16).greedy);
  if (JSON.stringify(theirs) === JSON.stringify(ours)) return ours;
  console.error(`The greedy ids differ, so no time counts:\n${theirs.join(" ")}\n${ours.join(" ")}`);
  process.exit(1);
}

/** `row` beside the earlier ones, its rounds joined to those of the same work. */
function addRow(rows, { work, unit, each, ...more }) {
  const at = rows.findIndex((row) => row.work === work);
  const earlier = at < 0 ? { llamaCpp: [], flashmla: [] } : rows[at].each;
  const joined = {
    llamaCpp: [...earlier.llamaCpp, ...each.llamaCpp],
    flashmla: [...earlier.flashmla, ...each.flashmla],
  };
  const { greedy, memory } = more;
  rows.splice(at < 0 ? rows.length : at, at < 0 ? 0 : 1, rowOf(work, unit, joined, { greedy, memory }));
}

const earlier = readEarlier();
const greedy = earlier?.greedyAfter16 ?? greedyAfter16();
const rows = earlier?.rows ?? [];
flags.contexts.split(",").forEach((text, index) => {
  console.error(`${text} cached tokens …`);
  const prefill = index === 0 ? Number(flags.prefill) : 0;
  for (const row of measureContext(Number(text), prefill)) addRow(rows, row);
});

console.table(
  rows.map(({ work, unit, llamaCpp, flashmla, timesFaster, greedy }) => ({
    work,
    unit,
    "llama.cpp": llamaCpp.toFixed(1),
    flashmla: flashmla.toFixed(1),
    "times faster": timesFaster.toFixed(2),
    "equal ids": greedy === undefined ? "" : `${greedy.equal} of ${greedy.of}`,
  })),
);
const report = {
  name: "llama-cpp",
  date: new Date().toISOString(),
  commit,
  machine: describeMachine(),
  node: process.version,
  threads: Number(flags.threads),
  cacheDtypes: { "llama.cpp": "f16", flashmla: flags.cache },
  greedyAfter16: greedy,
  rows,
};
if (flags.out) {
  mkdirSync(dirname(flags.out), { recursive: true });
  writeFileSync(flags.out, `${JSON.stringify(report, null, 1)}\n`);
}
console.log(JSON.stringify(report));
