import { UserError } from "../base/errors.ts";
import { type ByteFolder, type FolderLocation, openFolder } from "../files/byte-folder.ts";
import { readText } from "../files/read-file.ts";
import type { SafetensorsFile, TensorStore } from "./safetensors.ts";
import { openSafetensors, requireTensor } from "./safetensors.ts";
import type { TensorInfo } from "./safetensors-header.ts";
import { parseShardIndex } from "./shard-index.ts";

/** File names of a checkpoint's weights, in the Hugging Face layout. */
export const weightsFile = "model.safetensors";
/** The index of a checkpoint whose weights are in several files. */
export const weightsIndexFile = "model.safetensors.index.json";

const largestIndex = 100 * 2 ** 20;

/** Opens every file that `shards` names, or none: what was opened is closed when one fails. */
async function openShards(
  folder: ByteFolder,
  shards: Iterable<string>,
): Promise<Map<string, SafetensorsFile>> {
  const files = new Map<string, SafetensorsFile>();
  try {
    for (const shard of shards) {
      const source = await folder.open(shard);
      if (source === undefined) {
        throw new UserError(
          `${folder.name} lacks ${shard}, which ${weightsIndexFile} names; download the model again`,
        );
      }
      files.set(shard, await openSafetensors(source));
    }
    return files;
  } catch (error) {
    await Promise.all([...files.values()].map((file) => file.close()));
    throw error;
  }
}

function joinShards(
  folder: ByteFolder,
  shardOf: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, SafetensorsFile>,
): TensorStore {
  const tensors = new Map<string, TensorInfo>();
  for (const [name, shard] of shardOf) tensors.set(name, requireTensor(files.get(shard)!, name));
  const store = { name: folder.name, tensors };
  const fileOf = (name: string): SafetensorsFile => {
    requireTensor(store, name);
    return files.get(shardOf.get(name)!)!;
  };
  return {
    ...store,
    readTensor: async (name) => fileOf(name).readTensor(name),
    streamTensor: async (name, chunkBytes, consume) => fileOf(name).streamTensor(name, chunkBytes, consume),
    close: async () => {
      await Promise.all([...files.values()].map((file) => file.close()));
    },
  };
}

/**
 * Opens the weights in `folder`: `model.safetensors` where there is one, else the files that
 * `model.safetensors.index.json` names. Rejects with a UserError when there is neither, when a file is missing or breaks
 * its format, or when the index lists a tensor that its file does not hold. Nothing stays open then.
 */
export async function openCheckpointFolder(folder: ByteFolder): Promise<TensorStore> {
  const single = await folder.open(weightsFile);
  if (single !== undefined) return openSafetensors(single);
  const index = await readText(folder, weightsIndexFile, largestIndex);
  if (index === undefined) {
    throw new UserError(
      `${folder.name} holds no weights: it has neither ${weightsFile} nor ${weightsIndexFile}; give the folder of a ` +
        "model in the Hugging Face layout, with safetensors weights",
    );
  }
  const shardOf = parseShardIndex(`${folder.name}/${weightsIndexFile}`, index);
  const files = await openShards(folder, new Set(shardOf.values()));
  try {
    return joinShards(folder, shardOf, files);
  } catch (error) {
    await Promise.all([...files.values()].map((file) => file.close()));
    throw error;
  }
}

/** {@link openCheckpointFolder} of the folder at a path, behind an address, or of picked files. */
export async function openCheckpoint(location: FolderLocation): Promise<TensorStore> {
  return openCheckpointFolder(openFolder(location));
}
