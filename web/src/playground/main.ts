import { element } from "../elements.ts";
import { keepPage } from "../register.ts";
import { EngineClient } from "./engine-client.ts";
import { FiguresView } from "./figures-view.ts";
import { readSettings, showDefaults, showValues } from "./generation-settings.ts";
import { connectChooser } from "./model-chooser.ts";
import { modelSentence, progressSentence } from "./sentences.ts";

const prompt = element("prompt", HTMLTextAreaElement);
const generate = element("generate", HTMLButtonElement);
const stop = element("stop", HTMLButtonElement);
const status = element("status", HTMLElement);
const progress = element("progress", HTMLProgressElement);
const problem = element("error", HTMLElement);
const output = element("output", HTMLElement);
const outputPrompt = element("output-prompt", HTMLElement);
const outputText = element("output-text", HTMLElement);
const figures = new FiguresView();

type Phase = "opening" | "ready" | "generating" | "failed";

function enter(phase: Phase, sentence: string): void {
  document.body.dataset.phase = phase;
  generate.disabled = phase === "opening" || phase === "failed";
  stop.disabled = phase !== "generating";
  output.setAttribute("aria-busy", String(phase === "generating"));
  progress.hidden = phase !== "opening";
  status.textContent = sentence;
  if (phase !== "failed") problem.hidden = true;
}

function fail(message: string, during: "open" | "generate"): void {
  enter(during === "open" ? "failed" : "ready", during === "open" ? "No model is open." : "It stopped.");
  problem.textContent = message;
  problem.hidden = false;
}

const engine = new EngineClient({
  progress: ({ stage, done, total }) => {
    progress.max = total;
    progress.value = done;
    status.textContent = progressSentence(stage, done, total);
  },
  ready: ({ facts }) => {
    figures.showModel(facts);
    showDefaults(facts);
    enter("ready", modelSentence(facts));
  },
  tokens: ({ text, state }) => {
    const isAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    outputText.append(text);
    figures.showState(state);
    if (isAtEnd) output.scrollTop = output.scrollHeight;
  },
  finished: ({ reason, state }) => {
    figures.showState(state);
    const cached = state.cachedTokens ? `; ${state.cachedTokens} tokens of the prompt were in the cache` : "";
    enter("ready", `${state.outputTokens} tokens, ${reason}${cached}.`);
  },
  forgotten: () => {
    status.textContent = "What was kept of models is removed; the next visit fetches them again.";
  },
  reopening: ({ message }) => {
    enter("opening", message);
    progress.removeAttribute("value");
  },
  resumed: () => enter("generating", "Generating on …"),
  failed: ({ message, during }) => fail(message, during),
});

function begin(): void {
  if (generate.disabled) return;
  outputPrompt.textContent = prompt.value;
  outputText.textContent = "";
  enter("generating", "Generating …");
  engine.send({ kind: "generate", prompt: prompt.value, ...readSettings() });
}

element("prompt-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});
stop.addEventListener("click", () => engine.send({ kind: "stop" }));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    begin();
  }
  if (event.key === "Escape") engine.send({ kind: "stop" });
});

connectChooser({
  open: (request) => {
    enter("opening", "Opening the model …");
    progress.removeAttribute("value");
    engine.send(request);
  },
  forget: () => engine.send({ kind: "forget" }),
  refuse: (message) => fail(message, "open"),
});
showValues();
keepPage();
