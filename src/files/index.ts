export { blobSource, type PickedFile, pickedFolder } from "./blob-folder.ts";
export { forgetKeptFiles, keptUrlFolder } from "./browser-store.ts";
export { type ByteFolder, type FolderLocation, openFolder } from "./byte-folder.ts";
export * from "./byte-source.ts";
export { fileError, fileFolder, openFileSource } from "./file-source.ts";
export type { HttpOptions } from "./http-file.ts";
export {
  type FetchProgress,
  type FileAppender,
  type FileStore,
  type KeptFolderOptions,
  keptFolder,
} from "./kept-folder.ts";
export { readJson, readText } from "./read-file.ts";
export { urlFolder } from "./url-folder.ts";
