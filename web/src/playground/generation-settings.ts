import { element } from "../elements.ts";
import type { GenerateRequest, ModelFacts } from "./protocol.ts";

const maxTokens = element("max-tokens", HTMLInputElement);
const temperature = element("temperature", HTMLInputElement);
const topP = element("top-p", HTMLInputElement);
const topK = element("top-k", HTMLInputElement);
const seed = element("seed", HTMLInputElement);
const asChat = element("as-chat", HTMLInputElement);

/** What a number field holds; `fallback` where it holds no number. */
function numberOf(input: HTMLInputElement, fallback: number): number {
  return Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : fallback;
}

/** How the person at the page wants tokens drawn. */
export function readSettings(): Omit<GenerateRequest, "kind" | "prompt"> {
  const chosenSeed = Math.floor(numberOf(seed, -1));
  return {
    maxTokens: maxTokens.valueAsNumber,
    temperature: temperature.valueAsNumber,
    topP: topP.valueAsNumber,
    topK: Math.max(0, Math.floor(numberOf(topK, 0))),
    seed: chosenSeed >= 0 ? chosenSeed : null,
    asChat: asChat.checked,
  };
}

/** Shows what the model's authors suggest. */
export function showDefaults({ defaults, hasChat, maxContext, type, name }: ModelFacts): void {
  temperature.valueAsNumber = defaults.temperature;
  topP.valueAsNumber = defaults.topP;
  topK.valueAsNumber = defaults.topK;
  maxTokens.max = String(maxContext);
  element("as-chat-field", HTMLElement).hidden = !hasChat;
  // The shipped model writes scenes; its chat template is for those who look for it.
  asChat.checked = hasChat && !(type === "youtu" && name === "shakespeare-mla");
  showValues();
}

/** Shows what the sliders stand at. */
export function showValues(): void {
  for (const slider of [maxTokens, temperature, topP]) {
    element(`${slider.id}-value`, HTMLOutputElement).value = slider.value;
  }
}

for (const slider of [maxTokens, temperature, topP]) slider.addEventListener("input", showValues);
