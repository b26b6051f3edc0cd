import { bytesText } from "../elements.ts";
import type { ModelFacts } from "./protocol.ts";

/** How far opening is. */
export function progressSentence(stage: "fetching" | "loading", done: number, total: number): string {
  const verb = stage === "fetching" ? "Fetching" : "Loading weights";
  return `${verb}: ${bytesText(done)} of ${bytesText(total)}`;
}

/** That a model is ready, and what it lacks here. */
export function modelSentence(facts: ModelFacts): string {
  const seconds = (facts.openMs / 1000).toFixed(facts.openMs < 9950 ? 1 : 0);
  return [`${facts.name} is ready after ${seconds} s.`, deviceSentence(facts)].filter(Boolean).join(" ");
}

/** What is missing for more speed, and what runs instead; empty where nothing is. */
export function deviceSentence({ deviceKind, withoutWebGpu }: ModelFacts): string {
  if (deviceKind !== "cpu" || withoutWebGpu === null) return "";
  const reason = withoutWebGpu.replace(/\.$/, "");
  return `Without WebGPU (${reason.charAt(0).toLowerCase()}${reason.slice(1)}) it runs on the CPU.`;
}
