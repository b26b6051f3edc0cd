import { ApiError } from "./errors.ts";
import type { ServedModel } from "./served-model.ts";

/** Throws a 404 unless a request names the model that is served, or none. */
export function checkModelName(model: Pick<ServedModel, "name">, asked: string | null | undefined): void {
  if (asked == null || asked === model.name) return;
  throw new ApiError(404, `The model ${JSON.stringify(asked)} is not served here; there is ${model.name}.`, {
    param: "model",
    code: "model_not_found",
  });
}
