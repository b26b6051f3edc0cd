import { errorMessage, UserError } from "../base/errors.ts";
import type { ByteFolder } from "./byte-folder.ts";

const mebibyte = 2 ** 20;

/**
 * The text of the file at the path `file` of `folder`; undefined when there is none. Rejects with a UserError when it has
 * more than `limit` bytes or is not UTF-8.
 */
export async function readText(folder: ByteFolder, file: string, limit: number): Promise<string | undefined> {
  const source = await folder.open(file);
  if (source === undefined) return undefined;
  try {
    if (source.size > limit) {
      throw new UserError(
        `${source.name} is larger than ${limit / mebibyte} MiB, more than such a file may be; download the model again.`,
      );
    }
    const bytes = new Uint8Array(source.size);
    await source.read(0, bytes);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${source.name} is not UTF-8 text; download the model again.`, { cause: error });
  } finally {
    await source.close();
  }
}

/** The parsed JSON of a file, as {@link readText} reads it. Rejects with a UserError when it is no JSON. */
export async function readJson(folder: ByteFolder, file: string, limit: number): Promise<unknown> {
  const text = await readText(folder, file, limit);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(
      `${folder.name}/${file} is not valid JSON (${errorMessage(error)}); download the model again.`,
      { cause: error },
    );
  }
}
