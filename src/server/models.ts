import { checkModelName } from "./check-model-name.ts";
import type { ServedModel } from "./served-model.ts";

const entry = ({ name, created, engine }: ServedModel) => ({
  id: name,
  object: "model",
  created,
  owned_by: "flashmla",
  root: name,
  parent: null,
  max_model_len: engine.maxContext,
});

/** GET /v1/models. */
export function listModels(model: ServedModel): Response {
  return Response.json({ object: "list", data: [entry(model)] });
}

/** GET /v1/models/:name. Throws an ApiError of 404 for another name. */
export function describeModel(model: ServedModel, name: string): Response {
  checkModelName(model, name);
  return Response.json(entry(model));
}
