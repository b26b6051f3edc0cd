import { UserError } from "../base/errors.ts";

/** Whether `name` is a plain file name, which cannot lead out of its folder on any system. */
function isPlainFileName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !/[/\\:\0]/.test(name);
}

/**
 * Reads the text of a `model.safetensors.index.json` called `file`: which file of the same folder holds which tensor,
 * by the name of the tensor. Throws a UserError when it is not JSON of that form or a file name leads out of the folder.
 */
export function parseShardIndex(file: string, text: string): Map<string, string> {
  const fail = (what: string) =>
    new UserError(`${file} is not a valid index of safetensors files: ${what}; download or export it again`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw fail("it is not JSON");
  }
  const weightMap =
    typeof parsed === "object" && parsed !== null && "weight_map" in parsed ? parsed.weight_map : undefined;
  if (typeof weightMap !== "object" || weightMap === null || Array.isArray(weightMap)) {
    throw fail("it has no object called weight_map");
  }
  const shards = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(weightMap)) {
    if (typeof shard !== "string" || !isPlainFileName(shard)) {
      throw fail(
        `it puts tensor ${JSON.stringify(tensor)} in ${JSON.stringify(shard)}, which names no file of its folder`,
      );
    }
    shards.set(tensor, shard);
  }
  if (shards.size === 0) throw fail("its weight_map is empty");
  return shards;
}
