import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import { assumedEfficiency, STEP_OVERHEAD_SECONDS } from "../../economics/assumptions.ts";
import { type Calibration, calibrationOf } from "../../economics/calibration.ts";
import { findGpu, type Gpu, parseGpus } from "../../economics/gpus.ts";
import { type Plan, type PlanInput, planDeployment } from "../../economics/plan.ts";
import type { PlanModel } from "../../economics/plan-model.ts";
import { assumptionsOf, planPage } from "../../economics/plan-page.ts";
import {
  costRows,
  derivationRows,
  findingsOf,
  memoryRows,
  type Rows,
  scenarioRows,
  stepRows,
} from "../../economics/plan-tables.ts";
import { plainModel } from "../../economics/presets.ts";
import { publishedCosts, scenarioAssumptions } from "../../economics/scenarios.ts";
import { writePage } from "../../report/write-page.ts";
import { readJsonFile, shippedGpuFile } from "../data-files.ts";
import { withInterrupt } from "../model-session.ts";
import { formatTable, note, paint, printJson, printLine } from "../output.ts";
import { checkPlaces } from "../output-places.ts";
import { readPlanModel } from "../plan-model.ts";
import { addPlanFlags, type PlanFlags } from "./plan-flags.ts";

function gpuOf(flags: PlanFlags): Gpu {
  const file = flags.gpus ?? shippedGpuFile;
  const gpu = findGpu(parseGpus(readJsonFile(file, "The GPU file", "give a JSON file"), file), flags.gpu);
  const { memory = gpu.memoryGB, bandwidth = gpu.bandwidthGBs, tflops = gpu.bf16Tflops } = flags;
  return { ...gpu, memoryGB: memory, bandwidthGBs: bandwidth, bf16Tflops: tflops };
}

function priceOf({ price }: PlanFlags, gpu: Gpu): number {
  const found = price ?? gpu.pricePerHour;
  if (found !== null) return found;
  throw new UserError(`There is no published price of ${gpu.name} in the data; give one with --price.`);
}

async function modelOf(name: string | undefined, flags: PlanFlags, signal: AbortSignal): Promise<PlanModel> {
  const { params, layers, hidden, heads } = flags;
  if (params === undefined) return readPlanModel(name ?? "7b", signal);
  if (name !== undefined) throw new UserError("Give a model or the plain numbers of one, not both.");
  if (layers === undefined || hidden === undefined || heads === undefined) {
    throw new UserError("A model by plain numbers needs --params, --layers, --hidden and --heads.");
  }
  return plainModel("a dense model", {
    ...{ weights: Math.round(params), layers, hiddenSize: hidden, heads },
    ...{ headDim: flags.headDim ?? Math.ceil(hidden / heads), kvLoraRank: flags.kvLoraRank ?? 512 },
    ...{ qkRopeHeadDim: flags.ropeDim ?? 64, maxContext: flags.context ?? 131072 },
  });
}

function inputOf(model: PlanModel, flags: PlanFlags, calibration: Calibration | null): PlanInput {
  const gpu = gpuOf(flags);
  return {
    model,
    deployment: {
      gpu,
      tensorParallel: flags.tensorParallel,
      weightDtype: flags.weights,
      cacheDtype: flags.cache,
      efficiency: calibration?.efficiency ?? assumedEfficiency,
      overheadSeconds: STEP_OVERHEAD_SECONDS,
    },
    load: {
      requestsPerSecond: flags.rps,
      promptTokens: flags.prompt,
      outputTokens: flags.output,
      tokenLatencyMs: flags.tpot,
      firstTokenLatencyMs: flags.ttft,
      utilisation: flags.utilisation,
    },
    pricePerHour: priceOf(flags, gpu),
    copies: flags.dataParallel,
  };
}

function printTable(rows: Rows): void {
  const [head = "", ...lines] = formatTable(rows).split("\n");
  printLine([paint.bold(head), ...lines, ""].join("\n"));
}

function printPlan(input: PlanInput, plan: Plan, calibration: Calibration | null): void {
  printLine(`${findingsOf(plan, input).join("\n")}\n`);
  for (const rows of [
    costRows(plan),
    memoryRows(plan),
    stepRows(plan, "decode"),
    stepRows(plan, "prefill"),
  ]) {
    printTable(rows);
  }
  printLine("Published: 10, 100 and 1000 requests/s at $2.50 an hour save 67 %. What gives it:");
  printLine(
    `${scenarioAssumptions.tokensPerRequest} tokens a request, ${scenarioAssumptions.sequencesPerGpu} sequences a GPU, each at the published speed.\n`,
  );
  printTable(scenarioRows());
  printTable(derivationRows());
  for (const line of assumptionsOf(input, calibration)) printLine(line);
}

function readCalibration(file: string, version: string, gpu: Gpu): Calibration {
  const report = readJsonFile(file, "The results file", "give a file that flashmla bench kernel wrote");
  return calibrationOf(report, file, version, assumedEfficiency, gpu);
}

async function runPlan(
  name: string | undefined,
  flags: PlanFlags,
  version: string,
  signal: AbortSignal,
): Promise<void> {
  checkPlaces(flags);
  const model = await modelOf(name, flags, signal);
  const calibration =
    flags.results === undefined ? null : readCalibration(flags.results, version, gpuOf(flags));
  const input = inputOf(model, flags, calibration);
  const plan = planDeployment(input);
  if (!flags.json) printPlan(input, plan, calibration);
  if (flags.html !== undefined) {
    await writePage(planPage(input, plan, calibration, version), flags.html);
    note(`Written to ${flags.html}`);
  }
  const published = { assumptions: scenarioAssumptions, costs: publishedCosts(scenarioAssumptions) };
  printJson({ version, input, plan, calibration, published });
}

/** Adds `flashmla plan`: GPUs and money for a load. */
export function addPlanCommand(program: Command): void {
  const command = program
    .command("plan")
    .description("What a load takes in GPUs and money, beside full multi-head and grouped-query caching.")
    .argument(
      "[model]",
      "preset (7b, 7b-d256, deepseek-v2-lite, deepseek-v3), config.json, folder or hub id; default: 7b",
    );
  addPlanFlags(command);
  command
    .addHelpText(
      "after",
      "\nFormulas and assumptions: docs/planner.md\n" +
        "Example: flashmla plan deepseek-v3 --gpu h200-sxm --tensor-parallel 8 --weights fp8 --rps 20 --html plan.html",
    )
    .action((model: string | undefined, flags: PlanFlags) =>
      withInterrupt((signal) => runPlan(model, flags, program.version() ?? "", signal)),
    );
}
