import type { OutputLogprob } from "./events.ts";
import { logprobsOf } from "./logprobs.ts";
import type { CheckedRequest, TokenConstraint } from "./request.ts";
import type { AdjustLogits } from "./runner-types.ts";

/** Whether a request's logits depend on what was drawn before beyond what the model sees. */
export function dependsOnOutput(request: CheckedRequest): boolean {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, constraint } = request;
  return repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0 || constraint !== null;
}

/**
 * What is done to the logits of one sequence before each draw: log-probabilities noted, then ends of output banned that
 * come too early, biases, penalties and the constraint applied. Requests without any of these never leave the device.
 */
export class LogitsRules {
  readonly #request: CheckedRequest;
  readonly #endIds: readonly number[];
  readonly #constraint: TokenConstraint | null;
  readonly #dependsOnOutput: boolean;
  /** Times each token is in the output; 0 for those only in the prompt, noted for the repetition penalty. */
  readonly #counts = new Map<number, number>();
  /** Logits as the model gave them, by output token. */
  readonly #noted = new Map<number, Float32Array>();
  #failure: unknown = null;

  /** `endIds` may not be drawn before the request's `minTokens`. */
  constructor(request: CheckedRequest, endIds: readonly number[], constraint: TokenConstraint | null) {
    this.#request = request;
    this.#endIds = endIds;
    this.#constraint = constraint;
    this.#dependsOnOutput = dependsOnOutput(request);
    if (request.repetitionPenalty !== 1) for (const id of request.promptIds) this.#counts.set(id, 0);
  }

  /** What the constraint threw, if it did: the sequence cannot go on. */
  get failure(): unknown {
    return this.#failure;
  }

  /** What to do before output token `outputIndex` is drawn; null for nothing. */
  adjust(outputIndex: number): AdjustLogits | null {
    const { logprobs, logitBias, minTokens } = this.#request;
    const isPlain = logprobs === null && logitBias.size === 0 && outputIndex >= minTokens;
    if (isPlain && !this.#dependsOnOutput) return null;
    return (logits) => {
      if (logprobs !== null) this.#noted.set(outputIndex, logits.slice());
      if (outputIndex < minTokens) for (const id of this.#endIds) logits[id] = Number.NEGATIVE_INFINITY;
      for (const [id, bias] of logitBias) logits[id]! += bias;
      this.#penalise(logits);
      this.#constrain(() => this.#constraint?.mask(logits));
    };
  }

  /** Takes the token drawn as output token `outputIndex` and returns its log-probabilities, if they are asked for. */
  accept(outputIndex: number, tokenId: number): OutputLogprob | null {
    if (this.#dependsOnOutput) this.#counts.set(tokenId, (this.#counts.get(tokenId) ?? 0) + 1);
    this.#constrain(() => this.#constraint?.accept(tokenId));
    const noted = this.#noted.get(outputIndex);
    if (noted === undefined) return null;
    this.#noted.delete(outputIndex);
    return logprobsOf(noted, tokenId, this.#request.logprobs ?? 0);
  }

  #penalise(logits: Float32Array): void {
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = this.#request;
    for (const [id, count] of this.#counts) {
      const logit = logits[id]!;
      const repeated = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
      logits[id] = repeated - count * frequencyPenalty - (count > 0 ? presencePenalty : 0);
    }
  }

  /** Runs what a constraint does; one that throws must not take the other sequences of the step with it. */
  #constrain(action: () => void): void {
    if (this.#failure !== null) return;
    try {
      action();
    } catch (error) {
      this.#failure = error ?? new Error("the constraint threw nothing");
    }
  }
}
