import { element } from "../elements.ts";
import type { ModelChoice, OpenRequest } from "./protocol.ts";

/** What the chooser asks for. */
export interface ChooserActions {
  open(request: OpenRequest): void;
  forget(): void;
  /** There is nothing to open, in a sentence. */
  refuse(message: string): void;
}

const device = element("device", HTMLSelectElement);
const threads = element("threads", HTMLInputElement);
const address = element("address", HTMLInputElement);

function requestOf(model: ModelChoice): OpenRequest {
  const kind = device.value;
  const chosen = kind === "cpu" || kind === "webgpu" ? kind : "automatic";
  const count = threads.valueAsNumber;
  return { kind: "open", model, device: chosen, threads: count >= 1 ? Math.floor(count) : null };
}

/** What the address field says, seen from the page: the engine's worker has an address of its own. */
function chosenAddress(): ModelChoice {
  const text = address.value.trim();
  const isAddress = text !== "" && URL.canParse(text, document.baseURI);
  return { kind: "address", address: isAddress ? new URL(text, document.baseURI).href : text };
}

/** Opens the shipped model at once, and what is chosen later. */
export function connectChooser({ open, forget, refuse }: ChooserActions): void {
  let last = chosenAddress();
  const choose = (model: ModelChoice) => {
    last = model;
    open(requestOf(model));
  };
  element("open-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    choose(chosenAddress());
  });
  for (const id of ["folder", "files"]) {
    const input = element(id, HTMLInputElement);
    input.addEventListener("change", () => {
      const files = [...(input.files ?? [])];
      if (files.length > 0) choose({ kind: "files", files });
      else
        refuse("The folder is empty; pick one that holds config.json, tokenizer.json and safetensors files.");
    });
  }
  for (const field of [device, threads]) field.addEventListener("change", () => choose(last));
  element("forget", HTMLButtonElement).addEventListener("click", forget);
  const query = new URLSearchParams(location.search);
  const wanted = query.get("device");
  if ([...device.options].some(({ value }) => value === wanted)) device.value = wanted!;
  threads.value = query.get("threads") ?? "";
  choose(last);
}
