import * as z from "zod/mini";
import { UserError } from "../base/errors.ts";
import { type FolderLocation, openFolder } from "../files/byte-folder.ts";
import { readJson } from "../files/read-file.ts";
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

const tokenId = z.int().check(z.minimum(0), z.maximum(2 ** 24));
const generationFields = z.looseObject({
  eos_token_id: z.nullish(z.union([tokenId, z.array(tokenId)])),
  do_sample: z.nullish(z.boolean()),
  temperature: z.nullish(z.number().check(z.minimum(0), z.maximum(100))),
  top_k: z.nullish(z.int().check(z.minimum(0))),
  top_p: z.nullish(z.number().check(z.minimum(0), z.maximum(1))),
  min_p: z.nullish(z.number().check(z.minimum(0), z.maximum(1))),
});

/**
 * The config.json in the folder at `location`. Rejects with a UserError that names the folder when the file is
 * missing, no JSON, or not the config of a model that can be run.
 */
export async function readModelConfig(location: FolderLocation): Promise<ModelConfig> {
  const folder = openFolder(location);
  const json = await readJson(folder, "config.json", largestJson);
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
 * What the generation_config.json in the folder at `location` suggests, with the end-of-text ids of `config` where it names none; a
 * missing file suggests greedy decoding. Rejects with a UserError for a file that is no JSON or holds absurd values.
 */
export async function readGenerationDefaults(
  location: FolderLocation,
  config: Pick<ModelConfig, "eosTokenIds">,
): Promise<GenerationDefaults> {
  const folder = openFolder(location);
  const parsed = generationFields.safeParse(
    (await readJson(folder, "generation_config.json", largestJson)) ?? {},
  );
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
