import { type Gpu, presets } from "flashmla/economics";
import { make } from "../elements.ts";

/** Where every control stands. */
export interface Choices {
  readonly model: string;
  readonly gpu: string;
  readonly weightDtype: "bf16" | "fp8";
  readonly cacheDtype: "bf16" | "fp8" | "f32";
  readonly requestsPerSecond: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly tokenLatencyMs: number;
  readonly firstTokenLatencyMs: number;
  readonly utilisation: number;
  readonly tensorParallel: number;
  readonly pricePerHour: number;
}

type NumberName = { [Name in keyof Choices]: Choices[Name] extends number ? Name : never }[keyof Choices];
type TextName = Exclude<keyof Choices, NumberName>;

interface Slider {
  readonly name: NumberName;
  readonly label: string;
  readonly values: readonly number[];
  readonly unit: string;
}

const powers = (from: number, to: number) =>
  Array.from({ length: Math.log2(to / from) * 2 + 1 }, (_, i) => {
    const value = from * 2 ** (i / 2);
    return value < 10 ? Math.round(value * 10) / 10 : Math.round(value);
  });
const steps = (from: number, to: number, by: number) =>
  Array.from({ length: Math.round((to - from) / by) + 1 }, (_, i) => Math.round((from + i * by) * 100) / 100);

const sliders: readonly Slider[] = [
  {
    name: "requestsPerSecond",
    label: "Requests a second",
    values: [...powers(0.5, 8), 10, ...powers(16, 1024)],
    unit: "",
  },
  { name: "promptTokens", label: "Prompt", values: powers(64, 131072), unit: "tokens" },
  { name: "outputTokens", label: "Output", values: powers(16, 8192), unit: "tokens" },
  {
    name: "tokenLatencyMs",
    label: "A token at most",
    values: [5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300],
    unit: "ms",
  },
  {
    name: "firstTokenLatencyMs",
    label: "The first at most",
    values: [100, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000, 30000],
    unit: "ms",
  },
  { name: "utilisation", label: "Share of capacity to use", values: steps(0.3, 1, 0.05), unit: "" },
  { name: "tensorParallel", label: "GPUs a copy", values: [1, 2, 4, 8, 16, 32], unit: "" },
  { name: "pricePerHour", label: "Dollars an hour and GPU", values: steps(0.5, 12, 0.1), unit: "$" },
];

/** Index of the value next to `wanted`. */
function nearest(values: readonly number[], wanted: number): number {
  let best = 0;
  values.forEach((value, i) => {
    if (Math.abs(value - wanted) < Math.abs(values[best]! - wanted)) best = i;
  });
  return best;
}

function unitText(value: number, unit: string): string {
  if (unit === "$") return `$${value.toFixed(2)}`;
  return `${value.toLocaleString("en-US")}${unit === "" ? "" : ` ${unit}`}`;
}

/** Sliders and lists that are kept in the page's address, so that a plan can be passed on. */
export class Controls {
  #choices: Choices;
  readonly #show = new Map<NumberName, (value: number) => void>();
  readonly #onChange: (choices: Choices) => void;

  constructor(form: HTMLElement, gpus: readonly Gpu[], start: Choices, onChange: (choices: Choices) => void) {
    this.#choices = withAddress(start);
    this.#onChange = onChange;
    const names = Object.fromEntries(Object.keys(presets).map((name) => [name, name]));
    this.#addList(form, "model", "Model", names);
    this.#addList(form, "gpu", "GPU", Object.fromEntries(gpus.map(({ id, name }) => [id, name])));
    this.#addList(form, "weightDtype", "Weights", { bf16: "bf16", fp8: "fp8" });
    this.#addList(form, "cacheDtype", "Cache", { bf16: "bf16", fp8: "fp8 (latent form)", f32: "f32" });
    for (const slider of sliders) this.#addSlider(form, slider);
  }

  get choices(): Choices {
    return this.#choices;
  }

  /** Moves a slider, as if by hand but for the call back. */
  set(name: NumberName, value: number): void {
    this.#choices = { ...this.#choices, [name]: value };
    this.#show.get(name)!(value);
  }

  #change(name: keyof Choices, value: string | number): void {
    this.#choices = { ...this.#choices, [name]: value };
    const query = new URLSearchParams(Object.entries(this.#choices).map(([key, one]) => [key, String(one)]));
    history.replaceState(null, "", `?${query}`);
    this.#onChange(this.#choices);
  }

  #addList(
    form: HTMLElement,
    name: TextName,
    label: string,
    options: Readonly<Record<string, string>>,
  ): void {
    const select = make("select", "");
    select.id = name;
    select.append(...Object.entries(options).map(([value, text]) => new Option(text, value)));
    select.value = this.#choices[name];
    if (select.value === "") select.selectedIndex = 0;
    this.#choices = { ...this.#choices, [name]: select.value };
    select.addEventListener("change", () => this.#change(name, select.value));
    const caption = make("label", "", label);
    caption.htmlFor = name;
    form.append(caption, select);
  }

  #addSlider(form: HTMLElement, { name, label, values, unit }: Slider): void {
    const input = make("input", "");
    Object.assign(input, { id: name, type: "range", min: "0", max: String(values.length - 1), step: "1" });
    const output = make("output", "");
    const show = (value: number) => {
      output.value = unitText(value, unit);
      input.setAttribute("aria-valuetext", output.value);
      input.valueAsNumber = nearest(values, value);
    };
    show(this.#choices[name]);
    this.#show.set(name, show);
    input.addEventListener("input", () => {
      const value = values[input.valueAsNumber]!;
      show(value);
      this.#change(name, value);
    });
    const caption = make("label", "", label, output);
    caption.htmlFor = name;
    form.append(caption, input);
  }
}

/** What the page's address says takes the place of what it starts with. */
function withAddress(start: Choices): Choices {
  const query = new URLSearchParams(location.search);
  const entries = Object.entries(start).map(([name, value]) => {
    const said = query.get(name);
    if (said === null) return [name, value];
    if (typeof value === "string") return [name, said];
    const number = Number(said);
    return [name, Number.isFinite(number) && number > 0 ? number : value];
  });
  return Object.fromEntries(entries) as Choices;
}
