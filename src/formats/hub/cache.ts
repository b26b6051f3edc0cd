import { copyFile, mkdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { weightsFile, weightsIndexFile } from "../checkpoint.ts";
import { parseShardIndex } from "../shard-index.ts";
import type { ModelReference } from "./reference.ts";

/** Whether `text` is a commit of the hub. */
export function isCommit(text: unknown): text is string {
  return typeof text === "string" && /^[0-9a-f]{40}$/.test(text);
}

/** The folders of one model in the cache, laid out as the hub's own client does. */
export class ModelCache {
  readonly folder: string;

  constructor(cacheFolder: string, name: string) {
    this.folder = join(cacheFolder, `models--${name.replaceAll("/", "--")}`);
  }

  /** The folder with the files of one commit, links into the blobs. */
  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  /** The content of a file, named by its hash. */
  blob(hash: string): string {
    return join(this.folder, "blobs", hash);
  }

  /** Which commit the revision was when it was last fetched, undefined when it never was. */
  async readRef(revision: string): Promise<string | undefined> {
    const text = await readFile(join(this.folder, "refs", revision), "utf8").catch(() => "");
    return isCommit(text.trim()) ? text.trim() : undefined;
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    const path = join(this.folder, "refs", revision);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, commit);
  }

  /** Puts the blob `hash` into the snapshot under the name `file`: a link, a copy where links are not allowed. */
  async link(commit: string, file: string, hash: string): Promise<void> {
    const pointer = join(this.snapshot(commit), file);
    const fresh = `${pointer}.${crypto.randomUUID()}.incomplete`;
    await mkdir(dirname(pointer), { recursive: true });
    try {
      await symlink(relative(dirname(pointer), this.blob(hash)), fresh).catch(() =>
        copyFile(this.blob(hash), fresh),
      );
      await rename(fresh, pointer);
    } finally {
      await rm(fresh, { force: true });
    }
  }

  /** The snapshot folder of `reference` if it holds a whole model, by what is on disk alone. */
  async findWhole({ revision }: ModelReference): Promise<string | undefined> {
    const commit = isCommit(revision) ? revision : await this.readRef(revision);
    if (commit === undefined) return undefined;
    const folder = this.snapshot(commit);
    return (await holdsModel(folder)) ? folder : undefined;
  }
}

/** Length of the file at `path` in bytes, links followed; undefined when there is none. */
export async function fileSize(path: string): Promise<number | undefined> {
  return stat(path).then(
    (stats) => (stats.isFile() ? stats.size : undefined),
    () => undefined,
  );
}

/** Whether `folder` has a config and all of its weights: they are fetched last, so the rest is there as well. */
async function holdsModel(folder: string): Promise<boolean> {
  const has = async (file: string) => (await fileSize(join(folder, file))) !== undefined;
  if (!(await has("config.json"))) return false;
  if (await has(weightsFile)) return true;
  try {
    const index = await readFile(join(folder, weightsIndexFile), "utf8");
    const shards = new Set(parseShardIndex(weightsIndexFile, index).values());
    return (await Promise.all([...shards].map(has))).every(Boolean);
  } catch {
    return false;
  }
}
