import { bytesText, element } from "../elements.ts";
import { PagePicture } from "./page-picture.ts";
import type { GenerationState, ModelFacts } from "./protocol.ts";
import { deviceSentence } from "./sentences.ts";

const kindNames = { cpu: "CPU", webgpu: "WebGPU", cuda: "CUDA" } as const;
const show = (id: string, text: string) => {
  element(id, HTMLElement).textContent = text;
};

const speedText = (rate: number) => (rate < 10 ? rate.toPrecision(2) : rate.toFixed(0));

/** The numbers and pictures beside the text; they are drawn at most once a frame. */
export class FiguresView {
  readonly #pages = new PagePicture(element("pages", HTMLCanvasElement));
  #facts: ModelFacts | null = null;
  #state: GenerationState | null = null;
  #isDue = false;

  /** Shows an open model, and an empty cache. */
  showModel(facts: ModelFacts): void {
    this.#facts = facts;
    this.#state = null;
    const { name, type, weightBytes, cacheDtype, bytesPerToken, notKept } = facts;
    const kept =
      notKept === null ? "" : ` Its files are not kept for the next visit: ${notKept.replace(/\.$/, "")}.`;
    show(
      "model-facts",
      `${name} (${type}): ${bytesText(weightBytes)} of weights, ${bytesPerToken} B of ${cacheDtype} cache a token.${kept}`,
    );
    const device = `${kindNames[facts.deviceKind]}: ${facts.deviceName}.`;
    show("device-facts", [device, deviceSentence(facts), facts.withoutThreads].filter(Boolean).join(" "));
    show("tokens-limit", `of ${facts.maxContext}`);
    for (const id of ["speed", "first-token", "tokens"]) show(id, "–");
    this.#pages.reset(facts.pageCount, facts.pageSize);
    this.#showBytes(0);
  }

  /** Shows how far a generation is. */
  showState(state: GenerationState): void {
    this.#state = state;
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
    });
  }

  #draw(): void {
    const state = this.#state;
    if (state === null || this.#facts === null) return;
    const { promptTokens, outputTokens, timedTokens, firstTokenMs, decodeMs } = state;
    if (firstTokenMs !== null) show("first-token", firstTokenMs.toFixed(0));
    if (timedTokens > 1 && decodeMs > 0) show("speed", speedText(((timedTokens - 1) / decodeMs) * 1000));
    const tokens = promptTokens + outputTokens;
    show("tokens", String(tokens));
    const { usedPages, reusablePages } = state;
    this.#pages.draw({ tokens, usedPages, reusablePages });
    this.#showBytes(tokens);
  }

  #showBytes(tokens: number): void {
    const { bytesPerToken, fullHeadsBytesPerToken, maxContext } = this.#facts!;
    const times = fullHeadsBytesPerToken / bytesPerToken;
    const share = tokens / maxContext;
    element("heads-bar", HTMLElement).style.setProperty("--share", String(share));
    element("latent-bar", HTMLElement).style.setProperty("--share", String(share / times));
    show("latent-bytes", bytesText(tokens * bytesPerToken));
    show("heads-bytes", bytesText(tokens * fullHeadsBytesPerToken));
    const saved = tokens * (fullHeadsBytesPerToken - bytesPerToken);
    show("saved", `${bytesText(saved)} saved: ${times.toFixed(1)} times smaller.`);
  }
}
