// `flashmla bench layer` beside the best public pieces (FlashMLA between two cuBLAS batched products, PyTorch's graph), one after the other
// in one run; JSON with the ratio of each shape. Rotary embedding, norm and append are counted in ours alone.
//   node benchmarks/rivals/flash-mla/layer.mjs build/flash-mla.so [--out FILE]
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: "string" } },
});
const [library] = positionals;
if (library === undefined) {
  console.error("Give the shared object that build.sh makes.");
  process.exit(1);
}

/** What a program says on its last line. */
function lastJson(command, parameters) {
  const text = execFileSync(command, parameters, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  return JSON.parse(text.trim().split("\n").at(-1));
}

const theirs = lastJson("python3", [join(root, "benchmarks/rivals/torch/layer.py"), library]);
const ours = lastJson(process.execPath, [join(root, "dist/cli/main.js"), "bench", "layer", "--json"]);
const results = theirs.results.map((rival) => {
  const same = ({ heads, batch, length }) =>
    heads === rival.heads && batch === rival.batch && length === rival.length;
  const own = ours.results.find(same);
  const { heads, batch, length, ...pieces } = rival;
  return {
    heads,
    batch,
    length,
    ours: own,
    theirs: pieces,
    ratio: own && own.microseconds / pieces.microseconds,
  };
});
const { date, commit, versions, device, rounds, ceilings } = ours;
const how =
  "both: medians of replays of a graph of 32 calls, weights and caches of 16 layers in turn; theirs: FlashMLA between torch.bmm, " +
  "without rotary embedding, norm and append, which ours has";
const report = { name: "layer-beside-flash-mla", date, commit, versions, device, torch: theirs.torch, how };
const text = `${JSON.stringify({ ...report, rounds, ceilings, results }, null, 1)}\n`;
if (flags.out !== undefined) writeFileSync(flags.out, text);
for (const { heads, batch, length, ours: own, theirs: rival, ratio } of results) {
  const name = `h=${heads} b=${batch} s=${length}`.padEnd(20);
  console.log(
    `${name} ours ${own?.microseconds.toFixed(1)} theirs ${rival.microseconds.toFixed(1)} µs: ${ratio?.toFixed(2)}`,
  );
}
