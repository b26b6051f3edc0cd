// The same MLA model through llama.cpp and flashmla, in turns of two running processes.
//   npm start -- FOLDER [--threads 2] [--rounds 3] [--contexts 128,1024,4096,8192] [--prefill 512] [--cache f16]
//     [--out FILE] [--add] [--pause]
// FOLDER holds hf/ and model-bf16.gguf of one seed. --add joins the rounds to those that FILE has of the same commit, so
// that a long comparison can be taken in parts. --pause waits for a line of standard input before what is timed, so that long
// prompts can be read while the machine has other work.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
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
    pause: { type: "boolean", default: false },
    out: { type: "string" },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error("Give the folder that holds hf/ and model-bf16.gguf.");
  process.exit(1);
}
const contexts = flags.contexts.split(",").map(Number);
const prefillTokens = Number(flags.prefill);

/** Starts a program; resolves to a function that asks it for one measurement. */
async function start(script, model) {
  const longest = Math.max(prefillTokens, ...contexts);
  const parameters = [
    join(here, script),
    join(folder, model),
    flags.threads,
    longest,
    flags.steps,
    flags.cache,
  ];
  const child = spawn(process.execPath, parameters.map(String), { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${script} ended`);
    return value;
  };
  while ((await next()) !== "ready");
  const ask = async (work, tokens) => {
    child.stdin.write(`${work} ${tokens}\n`);
    return JSON.parse(await next());
  };
  return Object.assign(ask, { end: () => child.stdin.end() });
}

const programs = {
  llamaCpp: await start("llama.mjs", "model-bf16.gguf"),
  flashmla: await start("flashmla.mjs", "hf"),
};
const names = Object.keys(programs);

/** What both answer, one after the other. */
async function askBoth(work, tokens) {
  const answers = {};
  for (const name of names) answers[name] = await programs[name](work, tokens);
  return answers;
}

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function pause(what) {
  if (!flags.pause) return;
  console.error(`Ready for ${what}; a line of input starts it.`);
  await input.next();
}

/** `field` of every round, both in turn. */
async function rounds(work, tokens) {
  const all = [];
  for (let round = 0; round < Number(flags.rounds); round++) all.push(await askBoth(work, tokens));
  return all;
}

const fieldOf = (answers, field) =>
  Object.fromEntries(names.map((name) => [name, answers.map((answer) => answer[name][field])]));

/**
 * Equal ids from the first on, and where they part, how far flashmla's id was ahead of the next (a difference of logits): two
 * roundings of one model part where that is small.
 */
function compareIds({ llamaCpp, flashmla }) {
  const count = Math.min(llamaCpp.greedy.length, flashmla.greedy.length);
  let equal = 0;
  while (equal < count && llamaCpp.greedy[equal] === flashmla.greedy[equal]) equal++;
  return { equal, of: count, marginWhereTheyPart: equal < count ? flashmla.margins[equal] : null };
}

/** A row: every round's figure, their medians, and how many times faster flashmla is. */
function rowOf(work, unit, each, more) {
  const [theirs, ours] = [median(each.llamaCpp), median(each.flashmla)];
  const timesFaster = unit === "ms" ? theirs / ours : ours / theirs;
  return { work, unit, llamaCpp: theirs, flashmla: ours, timesFaster, each, ...more };
}

async function prefillRow(tokens) {
  await pause(`prefill of ${tokens} tokens`);
  await askBoth("prefill", tokens);
  const answers = await rounds("prefill", tokens);
  return rowOf(`prefill ${tokens}`, "tokens/s", fieldOf(answers, "tokensPerSecond"));
}

async function decodeRow(tokens) {
  console.error(`Reading a prompt of ${tokens} tokens …`);
  await askBoth("fill", tokens);
  await pause(`decoding at ${tokens} cached tokens`);
  const answers = await rounds("decode", tokens);
  const more = { greedy: compareIds(answers[0]), memory: answers.at(-1).flashmla.memory };
  return rowOf(`decode at ${tokens}`, "ms", fieldOf(answers, "milliseconds"), more);
}

/** Both programs' ids after 16 tokens, or an exit when they differ: then no time counts. */
async function greedyAfter16() {
  await askBoth("fill", 16);
  const answers = await askBoth("decode", 16);
  if (compareIds(answers).marginWhereTheyPart === null) return answers.flashmla.greedy;
  console.error(`The greedy ids differ, so no time counts:\n${JSON.stringify(answers)}`);
  process.exit(1);
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

/** `row` beside the earlier ones, its rounds joined to those of the same work. */
function addRow(rows, { work, unit, each, greedy, memory }) {
  const at = rows.findIndex((row) => row.work === work);
  const earlier = at < 0 ? { llamaCpp: [], flashmla: [] } : rows[at].each;
  const joined = Object.fromEntries(names.map((name) => [name, [...earlier[name], ...each[name]]]));
  rows.splice(at < 0 ? rows.length : at, at < 0 ? 0 : 1, rowOf(work, unit, joined, { greedy, memory }));
}

const earlier = readEarlier();
const greedy = await greedyAfter16();
const rows = earlier?.rows ?? [];
if (prefillTokens > 0) addRow(rows, await prefillRow(prefillTokens));
for (const tokens of contexts) addRow(rows, await decodeRow(tokens));
for (const name of names) programs[name].end();

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
process.exit(0);
