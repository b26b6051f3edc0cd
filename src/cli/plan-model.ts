import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { errorMessage, UserError } from "../base/errors.ts";
import { type PlanModel, planModelOf } from "../economics/plan-model.ts";
import { presets } from "../economics/presets.ts";
import { parseModelConfig } from "../formats/config.ts";
import { fetchConfigText } from "../formats/hub/fetch-config.ts";
import { parseModelReference } from "../formats/hub/reference.ts";
import { readHubSettings } from "../formats/hub/settings.ts";

async function configText(model: string, signal: AbortSignal): Promise<string> {
  const stats = await stat(model).catch(() => undefined);
  if (stats !== undefined) {
    const path = stats.isDirectory() ? join(model, "config.json") : model;
    return readFile(path, "utf8").catch((error) => {
      throw new UserError(
        `${path} cannot be read (${errorMessage(error)}); give a model's folder or its config.json.`,
      );
    });
  }
  const reference = parseModelReference(model);
  if (reference !== undefined) return fetchConfigText(reference, await readHubSettings(process.env), signal);
  const known = Object.keys(presets).join(", ");
  throw new UserError(
    `There is no model ${JSON.stringify(model)}; give a preset (${known}), a config.json, a model's folder or owner/name.`,
  );
}

/**
 * The planner's view of `model`: a preset, a config.json, a folder that holds one, or a hub id, of which config.json alone is
 * fetched. Quantised checkpoints are planned for too. Rejects with a UserError for anything else.
 */
export async function readPlanModel(model: string, signal: AbortSignal): Promise<PlanModel> {
  const preset = presets[model];
  if (preset !== undefined) return preset;
  const text = await configText(model, signal);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UserError(
      `The config of ${model} is not valid JSON (${errorMessage(error)}); give another file.`,
    );
  }
  if (typeof json === "object" && json !== null && "quantization_config" in json) {
    const { quantization_config: _, ...rest } = json;
    return planModelOf(model, parseModelConfig(rest));
  }
  return planModelOf(model, parseModelConfig(json));
}
