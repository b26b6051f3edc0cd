// The engine's worker: blocking steps run here, so that the page stays smooth.
import { UserError } from "flashmla";
import { forgetKeptFiles } from "flashmla/files";
import { generate, type Written } from "./generate.ts";
import { type OpenModel, openModel } from "./open-model.ts";
import type { FromWorker, GenerateRequest, OpenRequest, ToWorker } from "./protocol.ts";

const tell = (message: FromWorker) => self.postMessage(message);
let model: OpenModel | null = null;
let lastOpen: OpenRequest | null = null;
/** What is under way; the next request waits for its end. */
let work: Promise<void> = Promise.resolve();
let abort = new AbortController();

/** Only a `UserError` is written for people; what else is thrown keeps its kind. */
function messageOf(error: unknown): string {
  if (error instanceof UserError || error instanceof RangeError) return error.message;
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

async function open(request: OpenRequest, signal: AbortSignal): Promise<void> {
  lastOpen = request;
  try {
    // A device that was lost may refuse even this.
    await model?.close().catch(() => {});
    model = null;
    const progress = (stage: "fetching" | "loading", done: number, total: number) =>
      tell({ kind: "progress", stage, done, total });
    model = await openModel(request, progress, signal);
    tell({ kind: "ready", facts: model.facts });
  } catch (error) {
    if (signal.aborted) return;
    tell({ kind: "failed", during: "open", message: messageOf(error) });
  }
}

/** Runs a request. When the device is lost, the model is opened anew once and the text goes on. */
async function answer(request: GenerateRequest, signal: AbortSignal): Promise<void> {
  const written: Written = { ids: [] };
  try {
    if (model === null) throw new UserError("There is no model yet; open one first.");
    await generate(model, request, { signal, tell, written });
  } catch (error) {
    if (lastOpen === null || model?.isLost() !== true) return failGenerating(error);
    tell({ kind: "reopening", message: "The device was lost; the model is opened anew …" });
    await open(lastOpen, signal);
    if (model === null) return;
    tell({ kind: "resumed" });
    await generate(model, request, { signal, tell, written }).catch(failGenerating);
  }
}

function failGenerating(error: unknown): void {
  tell({ kind: "failed", during: "generate", message: messageOf(error) });
}

function begin(task: (signal: AbortSignal) => Promise<void>): void {
  abort.abort();
  abort = new AbortController();
  const { signal } = abort;
  work = work.then(() => task(signal));
}

self.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "open") begin((signal) => open(data, signal));
  else if (data.kind === "generate") begin((signal) => answer(data, signal));
  else if (data.kind === "stop") abort.abort();
  else void forgetKeptFiles().then(() => tell({ kind: "forgotten" }));
});
