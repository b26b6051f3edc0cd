import type { OutputLogprob, TokenLogprob } from "../engine/events.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { tokenBytes, tokenText } from "./token-text.ts";

interface ChatTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

/** JSON has no −Infinity; OpenAI writes the same number for what cannot come. */
const LOWEST = -9999;

const finite = (logprob: number) => Math.max(logprob, LOWEST);

function entry(tokenizer: Tokenizer, { tokenId, logprob }: TokenLogprob): ChatTokenLogprob {
  return {
    token: tokenText(tokenizer, tokenId),
    logprob: finite(logprob),
    bytes: [...tokenBytes(tokenizer, tokenId)],
  };
}

/** `choices[].logprobs` of a chat completion. */
export function chatLogprobs(tokenizer: Tokenizer, logprobs: readonly OutputLogprob[]) {
  const content = logprobs.map((one) => ({
    ...entry(tokenizer, one),
    top_logprobs: one.top.map((other) => entry(tokenizer, other)),
  }));
  return { content, refusal: null };
}

/** `choices[].logprobs` of a plain completion; `offset` is where its text begins. */
export function completionLogprobs(tokenizer: Tokenizer, logprobs: readonly OutputLogprob[], offset: number) {
  const tokens = logprobs.map(({ tokenId }) => tokenText(tokenizer, tokenId));
  let at = offset;
  const text_offset = tokens.map((token) => {
    at += token.length;
    return at - token.length;
  });
  const top_logprobs = logprobs.map(({ top }) =>
    Object.fromEntries(top.map((one) => [tokenText(tokenizer, one.tokenId), finite(one.logprob)])),
  );
  return {
    text_offset,
    tokens,
    token_logprobs: logprobs.map(({ logprob }) => finite(logprob)),
    top_logprobs,
  };
}
