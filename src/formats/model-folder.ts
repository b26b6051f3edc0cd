import { z } from "zod";
import { errorMessage, UserError } from "../base/errors.ts";
import type { ByteFolder } from "./checkpoint.ts";
import { fileFolder } from "./checkpoint.ts";
import { parseModelConfig } from "./config.ts";
import type { ModelConfig } from "./config-types.ts";

const largestJson = 16 * 2 ** 20;

/** What generation_config.json suggests; a field left out is undefined. */
export interface GenerationDefaults {
  readonly eosTokenIds: readonly number[];
  /** Whether the model's authors suggest sampling rather than greedy decoding. */
  readonly doSample: boolean;
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
}

const tokenId = z
  .int()
  .min(0)
  .max(2 ** 24);
const generationFields = z.looseObject({
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).max(100).nullish(),
  top_k: z.int().min(0).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
});

async function readJson(folder: ByteFolder, file: string): Promise<unknown> {
  const source = await folder.open(file);
  if (source === undefined) return undefined;
  try {
    if (source.size > largestJson) throw new UserError(`${source.name} is over the limit of 16 MiB`);
    const bytes = new Uint8Array(source.size);
    await source.read(0, bytes);
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    if (error instanceof UserError) throw error;
    const problem = `${source.name} is not valid JSON (${errorMessage(error)}); download the model again`;
    throw new UserError(problem, { cause: error });
  } finally {
    await source.close();
  }
}

/**
 * The config.json in the folder at the path `directory`. Rejects with a UserError that names the folder when the file is
 * missing, no JSON, or not the config of a model that can be run.
 */
export async function readModelConfig(directory: string): Promise<ModelConfig> {
  const folder = fileFolder(directory);
  const json = await readJson(folder, "config.json");
  if (json === undefined) {
    throw new UserError(
      `${folder.name} holds no config.json; give the folder of a model in the Hugging Face layout`,
    );
  }
  try {
    return parseModelConfig(json);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`${folder.name}/${error.message}`, { cause: error });
  }
}

/**
 * What the generation_config.json in `directory` suggests, with the end-of-text ids of `config` where it names none; a
 * missing file suggests greedy decoding. Rejects with a UserError for a file that is no JSON or holds absurd values.
 */
export async function readGenerationDefaults(
  directory: string,
  config: Pick<ModelConfig, "eosTokenIds">,
): Promise<GenerationDefaults> {
  const folder = fileFolder(directory);
  const parsed = generationFields.safeParse((await readJson(folder, "generation_config.json")) ?? {});
  if (!parsed.success) {
    const field = parsed.error.issues[0]?.path.join(".") || "its content";
    throw new UserError(
      `${folder.name}/generation_config.json: ${field} is not what it should be; mend or remove the file`,
    );
  }
  const { eos_token_id: eos, do_sample, temperature, top_k, top_p, min_p } = parsed.data;
  const own = eos == null ? [] : [eos].flat();
  return {
    eosTokenIds: own.length > 0 ? own : config.eosTokenIds,
    doSample: do_sample ?? false,
    temperature: temperature ?? undefined,
    topK: top_k ?? undefined,
    topP: top_p ?? undefined,
    minP: min_p ?? undefined,
  };
}
