import { encodeBounded, renderPrompt } from "./chat-prompt.ts";
import { checkModelName } from "./check-model-name.ts";
import { detokenizeRequest, tokenizeRequest } from "./completion-request.ts";
import { invalid, refusal } from "./errors.ts";
import { readJsonBody } from "./read-body.ts";
import type { RequestContext } from "./request-context.ts";
import { tokenText } from "./token-text.ts";

/** POST /tokenize, with vLLM's fields: the ids of a text or of a conversation. */
export async function tokenize({ request, model, limits }: RequestContext): Promise<Response> {
  const body = await readJsonBody(request, tokenizeRequest, limits.maxBodyBytes);
  checkModelName(model, body.model);
  if ((body.prompt == null) === (body.messages == null)) {
    throw invalid("prompt", "give either prompt or messages");
  }
  const { messages } = body;
  const text = messages == null ? (body.prompt ?? "") : renderPrompt(model, { ...body, messages }, undefined);
  const tokens = [...encodeBounded(model, text, body.add_special_tokens ?? messages == null)];
  return Response.json({
    count: tokens.length,
    max_model_len: model.engine.maxContext,
    tokens,
    ...(body.return_token_strs ? { token_strs: tokens.map((id) => tokenText(model.tokenizer, id)) } : {}),
  });
}

/** POST /detokenize, with vLLM's fields: the text of ids. */
export async function detokenize({ request, model, limits }: RequestContext): Promise<Response> {
  const body = await readJsonBody(request, detokenizeRequest, limits.maxBodyBytes);
  checkModelName(model, body.model);
  try {
    return Response.json({ prompt: model.tokenizer.decode(body.tokens, { skipSpecialTokens: false }) });
  } catch (error) {
    throw refusal(error);
  }
}
