import {
  assumedEfficiency,
  assumptionsOf,
  cacheFormNames,
  costRows,
  defaultLoad,
  findGpu,
  findingsOf,
  memoryRows,
  type Plan,
  type PlanInput,
  parseGpus,
  planDeployment,
  presets,
  type Rows,
  STEP_OVERHEAD_SECONDS,
  stepRows,
} from "flashmla/economics";
import gpuData from "../../../data/gpus.json";
import { element, make } from "../elements.ts";
import { keepPage } from "../register.ts";
import { type Choices, Controls } from "./controls.ts";

const gpus = parseGpus(gpuData, "data/gpus.json");
/** What an hour of a GPU is taken for where nobody publishes a price. */
const unknownPrice = 4;
const priceOf = (id: string) => findGpu(gpus, id).pricePerHour ?? unknownPrice;

const start: Choices = {
  ...{ model: "7b", gpu: "h200-sxm", weightDtype: "bf16", cacheDtype: "bf16", tensorParallel: 1 },
  ...defaultLoad,
  // Enough for the forms of the cache to differ by whole GPUs.
  requestsPerSecond: 128,
  pricePerHour: priceOf("h200-sxm"),
};

function inputOf({
  model,
  gpu,
  weightDtype,
  cacheDtype,
  tensorParallel,
  pricePerHour,
  ...load
}: Choices): PlanInput {
  return {
    model: presets[model]!,
    deployment: {
      ...{ gpu: findGpu(gpus, gpu), tensorParallel, weightDtype, cacheDtype },
      ...{ efficiency: assumedEfficiency, overheadSeconds: STEP_OVERHEAD_SECONDS },
    },
    ...{ load, pricePerHour },
  };
}

/** GPUs of every form that can serve, as bars beside each other. */
function gpuBars({ forms }: Plan): HTMLElement {
  const most = Math.max(...forms.map(({ service }) => service?.gpus ?? 0));
  const rows = forms.map(({ form, service }) => {
    const bar = make("span", `bar ${form}`);
    bar.style.setProperty("--share", String(service === null ? 0 : service.gpus / most));
    const count = make("b", "", service === null ? "cannot" : service.gpus.toLocaleString("en-US"));
    return make("div", "", make("dt", "", `${cacheFormNames[form]} cache`), make("dd", "", bar, count));
  });
  return make("dl", "bars", ...rows);
}

function tableOf([head = [], ...rows]: Rows): HTMLElement {
  const headCells = head.map((text) => {
    const cell = make("th", "", text);
    cell.scope = "col";
    return cell;
  });
  const body = rows.map(([first = "", ...rest]) => {
    const name = make("th", "", first);
    name.scope = "row";
    return make("tr", "", name, ...rest.map((text) => make("td", "", text)));
  });
  const table = make(
    "table",
    "",
    make("thead", "", make("tr", "", ...headCells)),
    make("tbody", "", ...body),
  );
  const box = make("div", "table", table);
  // Wide tables scroll sideways on a phone, also by keys.
  Object.assign(box, { tabIndex: 0, role: "region", ariaLabel: head.join(", ") });
  return box;
}

function detailsOf(input: PlanInput, plan: Plan): HTMLElement[] {
  const items = assumptionsOf(input, null).map((text) => make("li", "", text));
  return [
    ...[make("h2", "", "Service and cost"), tableOf(costRows(plan))],
    ...[make("h2", "", "Memory"), tableOf(memoryRows(plan))],
    ...[make("h2", "", "Time of a decode step"), tableOf(stepRows(plan, "decode"))],
    ...[make("h2", "", "Time of a prompt"), tableOf(stepRows(plan, "prefill"))],
    ...[make("h2", "", "Assumptions"), make("ul", "assumptions", ...items)],
  ];
}

function show(choices: Choices): void {
  const problem = element("error", HTMLElement);
  const bars = element("bars", HTMLElement);
  const details = element("details", HTMLElement);
  try {
    const input = inputOf(choices);
    const plan = planDeployment(input);
    const [answer = "", ...more] = findingsOf(plan, input);
    element("answer", HTMLElement).textContent = answer;
    element("answer-more", HTMLElement).textContent = more.join(" ");
    bars.replaceChildren(make("h2", "", "GPUs"), gpuBars(plan));
    details.replaceChildren(...detailsOf(input, plan));
    problem.hidden = true;
  } catch (error) {
    for (const id of ["answer", "answer-more"]) element(id, HTMLElement).textContent = "";
    bars.replaceChildren();
    details.replaceChildren();
    problem.textContent = error instanceof Error ? error.message : String(error);
    problem.hidden = false;
  }
}

let gpu = start.gpu;
const controls = new Controls(element("controls", HTMLElement), gpus, start, (choices) => {
  if (choices.gpu !== gpu) {
    gpu = choices.gpu;
    controls.set("pricePerHour", priceOf(gpu));
  }
  show(controls.choices);
});
gpu = controls.choices.gpu;
show(controls.choices);
keepPage();
