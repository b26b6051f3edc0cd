import { errorMessage, UserError } from "../base/errors.ts";
import type { ByteFolder } from "./byte-folder.ts";
import { type ByteSource, endedEarly } from "./byte-source.ts";

/** A {@link ByteSource} over a Blob, such as a File that was picked or dropped: only what is read is brought to memory. */
export function blobSource(name: string, blob: Blob): ByteSource {
  return {
    name,
    size: blob.size,
    read: async (offset, target) => {
      if (offset + target.length > blob.size) throw endedEarly(name, offset, target.length);
      const part = blob.slice(offset, offset + target.length);
      const bytes = await part.arrayBuffer().catch((cause: unknown) => {
        throw new UserError(
          `${name} cannot be read (${errorMessage(cause)}); it was moved or changed, pick it again.`,
          {
            cause,
          },
        );
      });
      target.set(new Uint8Array(bytes));
    },
    close: async () => {},
  };
}

/** The part of a picked file's path that is inside the folder; its name where it was picked by itself. */
function pathInside({ name, webkitRelativePath = "" }: PickedFile): string {
  const slash = webkitRelativePath.indexOf("/");
  return slash < 0 ? name : webkitRelativePath.slice(slash + 1);
}

/** What is used of a File. */
export type PickedFile = Blob & { readonly name: string; readonly webkitRelativePath?: string };

/**
 * The folder of files that a person picked (`<input type="file" webkitdirectory>` or `multiple`) or dropped. Where a whole
 * folder was picked, paths are relative to it.
 */
export function pickedFolder(files: Iterable<PickedFile>): ByteFolder {
  const all = [...files];
  const byPath = new Map(all.map((file) => [pathInside(file), file]));
  const folder = all[0]?.webkitRelativePath?.split("/")[0];
  const name = folder || "the picked files";
  return {
    name,
    open: async (path) => {
      const file = byPath.get(path);
      return file && blobSource(folder ? `${folder}/${path}` : path, file);
    },
    list: async (inside) =>
      [...byPath.keys()]
        .filter((path) => path.startsWith(`${inside}/`) && !path.slice(inside.length + 1).includes("/"))
        .map((path) => path.slice(inside.length + 1)),
  };
}
