import { UserError } from "../base/errors.ts";
import type { ByteFolder } from "./byte-folder.ts";
import { type ByteSource, bytesSource } from "./byte-source.ts";
import { HttpFile, type HttpOptions } from "./http-file.ts";
import { rangedSource, wholeSource } from "./url-source.ts";

/** What the first request of a file asks for; most files of a model but its weights are no longer. */
const firstBytes = 65536;

/**
 * The files behind an http(s) address, such as `https://host/models/name/`, read by ranged requests. A server that knows no
 * ranges can serve files of up to 1 GiB, which are held in memory. `open` rejects with a UserError when the server
 * cannot be reached or refuses. Throws UserError for an address of another kind.
 */
export function urlFolder(address: string | URL, options: HttpOptions = {}): ByteFolder {
  const root = folderAddress(address);
  return {
    name: root.href.replace(/\/$/, ""),
    open: (file) => {
      const path = file.split("/").map(encodeURIComponent).join("/");
      return openUrl(new HttpFile(new URL(path, root), options));
    },
  };
}

function folderAddress(address: string | URL): URL {
  const text = String(address);
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new UserError(
      `${JSON.stringify(text)} is not the address of a model; give one like https://host/models/name/`,
    );
  }
  const root = new URL(text);
  root.search = "";
  root.hash = "";
  if (!root.pathname.endsWith("/")) root.pathname += "/";
  return root;
}

async function openUrl(file: HttpFile): Promise<ByteSource | undefined> {
  const response = await file.request(0, firstBytes);
  // Servers of single-page apps answer what they do not have with their page.
  if (response.status === 404 || response.status === 410 || isPage(response)) {
    await response.body?.cancel();
    return undefined;
  }
  const version = versionOf(response);
  if (response.status === 416) return { ...bytesSource(file.name, new Uint8Array()), version };
  if (!response.ok) throw file.refused(response);
  if (response.status !== 206) return wholeSource(file, response, version);
  const first = new Uint8Array(await response.arrayBuffer());
  const size = totalOf(response) ?? (await sizeByHead(file));
  if (size <= first.length) return { ...bytesSource(file.name, first.subarray(0, size)), version };
  return rangedSource(file, size, version);
}

const isPage = ({ headers }: Response) => headers.get("content-type")?.startsWith("text/html") === true;

function versionOf({ headers }: Response): string | undefined {
  return headers.get("etag") ?? headers.get("last-modified") ?? undefined;
}

/** The size of the whole file, from `Content-Range: bytes 0-99/1234`. */
function totalOf({ headers }: Response): number | undefined {
  const total = headers.get("content-range")?.match(/\/(\d+)\s*$/)?.[1];
  return total === undefined ? undefined : Number(total);
}

/** A server of another origin may hide Content-Range, but never Content-Length. */
async function sizeByHead(file: HttpFile): Promise<number> {
  const { headers } = await file.head();
  const size = Number(headers.get("content-length") ?? Number.NaN);
  if (Number.isSafeInteger(size)) return size;
  throw new UserError(
    `${file.name}: the server does not say how long the file is; use another server for the model`,
  );
}
