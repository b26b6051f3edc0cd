// mla-decode beside another library's kernel over the table of shapes, in one process, in turn; JSON with the ratio of each shape.
//   node benchmarks/rivals/flash-mla/beside.mjs build/flash-mla.so [--shapes FILE] [--name decode-beside-flash-mla] [--rival FlashMLA] [--out FILE]
// Needs dist/, cubin/ and build/ (build.sh). The ceilings are measured in the same run, before and after.
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bestCeilings, measureDeviceCeilings } from "../../../dist/bench/device-ceilings.js";
import { describeCommit } from "../../../dist/bench/machine.js";
import { openDevice } from "../../../dist/device/open.js";
import { planHopper } from "../../../dist/kernels/mla-decode/mla-decode.hopper.js";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../../..");
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shapes: { type: "string", default: join(here, "table.txt") },
    name: { type: "string", default: "decode-beside-flash-mla" },
    rival: { type: "string", default: "FlashMLA" },
    out: { type: "string" },
  },
});
const [library] = positionals;
if (library === undefined) {
  console.error("Give the shared object that build.sh makes.");
  process.exit(1);
}

async function onDevice(work) {
  const device = await openDevice({ kind: "cuda" });
  try {
    return await work(device);
  } finally {
    await device.close();
  }
}

const ceilings = () =>
  onDevice(async (device) => ({ device: device.name, ...(await measureDeviceCeilings(device)) }));

/** A shape with the blocks, clusters and shares that mlaDecode takes for it, as the harness wants them. */
function planned(shape, limits) {
  const [batch, sQ, heads, length] = shape.split(" ").map(Number);
  const widths = { latentWidth: 512, ropeWidth: 64 };
  const args = { batch, sQ, heads, ...widths, cache: { pageSize: 64, dtype: "bf16" } };
  const tableWidth = Math.ceil(length / 64);
  const decode = { args, dtype: "bf16", pages: batch * tableWidth, tableWidth, options: {} };
  const { rowsABlock, cluster, groups, leastTiles } = planHopper(decode, limits);
  const kernel = rowsABlock === 64 ? "many=1" : `few=${rowsABlock}`;
  return `${shape} ${kernel} cluster=${cluster} groups=${groups} least=${leastTiles}`;
}

/** The harness's lines for every shape; each is told as it comes. */
async function* measure(lines) {
  const cubins = ["few-rows", "many-rows"].map((stem) => join(root, `cubin/mla-decode.${stem}.sm90.cubin`));
  const harness = spawn(join(root, "build/decode-harness"), cubins, { stdio: ["pipe", "pipe", "inherit"] });
  harness.stdin.end(`${lines.map((line) => `${line} beside=${library}`).join("\n")}\n`);
  for await (const line of createInterface({ input: harness.stdout })) yield line;
}

const number = "\\s*([\\d.e+-]+)";
const pattern = (head) =>
  new RegExp(`^(\\d+ \\d+ \\d+ \\d+) .*${head}cold${number} us warm${number} us.* err${number}/${number}`);
const [theirs, ours] = [pattern("theirs "), pattern("")];
const timesOf = ([, , cold, warm, worst, distance]) => {
  const [coldMicroseconds, warmMicroseconds, worstError, relativeDistance] = [
    cold,
    warm,
    worst,
    distance,
  ].map(Number);
  return { coldMicroseconds, warmMicroseconds, worstError, relativeDistance };
};

function resultOf(shape, rival, own, { bytesPerSecond, flopsPerSecond }) {
  const [batch, sQ, heads, length] = shape.split(" ").map(Number);
  const bytes = 2 * batch * (length * 576 + sQ * heads * (576 + 512));
  const flops = 2 * batch * sQ * heads * length * (576 + 512);
  const floorMicroseconds = 1e6 * Math.max(bytes / bytesPerSecond, flops / flopsPerSecond);
  const ratio = own.coldMicroseconds / rival.coldMicroseconds;
  return { batch, sQ, heads, length, floorMicroseconds, ours: own, theirs: rival, ratio };
}

const shapes = readFileSync(flags.shapes, "utf8").trim().split("\n");
const before = await ceilings();
const plans = await onDevice(async (device) => shapes.map((shape) => planned(shape, device.limits)));
const lines = [];
let rival = null;
const notes = [];
for await (const line of measure(plans)) {
  const [their, own] = [theirs.exec(line), ours.exec(line)];
  if (their !== null) rival = timesOf(their);
  else if (own !== null) {
    const result = resultOf(own[1], rival, timesOf(own), before);
    lines.push([own[1], rival, timesOf(own)]);
    console.error(
      `${own[1].padEnd(18)} ours ${result.ours.coldMicroseconds} theirs ${rival.coldMicroseconds} µs: ${result.ratio.toFixed(3)}`,
    );
  } else notes.push(line);
}
const { device, ...most } = { device: before.device, ...bestCeilings(before, await ceilings()) };
const how =
  "benchmarks/cuda/decode-harness.cu: median of three rounds in turn (warm: one), each the median of 7 replays of a graph of many calls; cold: " +
  "pages of its own for each call, over 300 MB; both checked against float64 before; the rival's planning is not counted; ours: `plans`, as mlaDecode chooses them";
const report = {
  ...{
    name: flags.name,
    date: new Date().toISOString(),
    commit: describeCommit(),
    device,
    rival: flags.rival,
    how,
  },
  ceilings: most,
  results: lines.map(([shape, their, own]) => resultOf(shape, their, own, most)),
  plans,
  notes,
};
const text = `${JSON.stringify(report, null, 1)}\n`;
if (flags.out !== undefined) writeFileSync(flags.out, text);
else console.log(text);
if (lines.length < shapes.length) {
  console.error(`${shapes.length - lines.length} of ${shapes.length} shapes have no result`);
  process.exitCode = 1;
}
