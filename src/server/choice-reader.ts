import { randomUUID } from "node:crypto";
import { callsOf, type WrittenCall } from "./tool-formats.ts";
import type { OutputPlan } from "./tool-plan.ts";
import { ToolReader } from "./tool-reader.ts";

/** A call of a tool as it is answered. */
export interface ToolCall extends WrittenCall {
  readonly id: string;
}

/** What a piece of output came to. */
export interface ChoicePiece {
  readonly content: string;
  readonly calls: readonly ToolCall[];
}

function parseCalls(text: string): readonly WrittenCall[] | null {
  try {
    return callsOf(JSON.parse(text));
  } catch {
    return null;
  }
}

/** Follows the text of one choice and tells content from calls. */
export class ChoiceReader {
  readonly #plan: OutputPlan;
  readonly #reader: ToolReader | null;
  #kept = "";
  #calls = 0;

  constructor(plan: OutputPlan) {
    this.#plan = plan;
    this.#reader = plan.kind === "calls-in-text" ? new ToolReader(plan.format) : null;
  }

  /** Whether there were calls. */
  get hasCalls(): boolean {
    return this.#calls > 0;
  }

  /** Takes the next piece of text. */
  push(text: string): ChoicePiece {
    if (this.#plan.kind === "text") return { content: text, calls: [] };
    if (this.#reader !== null) return this.#number(this.#reader.push(text));
    this.#kept += text;
    return { content: "", calls: [] };
  }

  /** Ends the text; forced calls come as one piece. A list that was cut short is content. */
  flush(): ChoicePiece {
    if (this.#reader !== null) return this.#number(this.#reader.flush());
    if (this.#plan.kind === "arguments") {
      return this.#number({ content: "", calls: [{ name: this.#plan.name, arguments: this.#kept }] });
    }
    if (this.#plan.kind === "text") return { content: "", calls: [] };
    const calls = parseCalls(this.#kept);
    return this.#number(calls === null ? { content: this.#kept, calls: [] } : { content: "", calls });
  }

  #number({ content, calls }: { content: string; calls: readonly WrittenCall[] }): ChoicePiece {
    const room = (this.#plan.kind === "calls-in-text" ? this.#plan.maxCalls : calls.length) - this.#calls;
    const taken = this.#plan.kind === "calls-in-text" ? calls.slice(0, Math.max(0, room)) : calls;
    this.#calls += taken.length;
    return {
      content,
      calls: taken.map((call) => ({ ...call, id: `call_${randomUUID().replaceAll("-", "")}` })),
    };
  }
}
