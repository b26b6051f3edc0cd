import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { openCheckpoint } from "../formats/checkpoint.ts";
import { readModelConfig } from "../formats/model-folder.ts";
import { openTokenizer } from "../text/open-tokenizer.ts";
import { openFolder } from "./byte-folder.ts";
import { urlFolder } from "./url-folder.ts";

const content = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 8)) & 255);

interface Behaviour {
  ranges: boolean;
  etag: string | null;
  /** Bytes after which answers break off, each time. */
  breakAfter: number;
  /** Statuses that the next requests get. */
  faults: number[];
  body: Uint8Array;
  type: string;
}
let server: Behaviour;
const requests: string[] = [];
beforeEach(() => {
  const plain = { ranges: true, etag: '"a"', breakAfter: Number.POSITIVE_INFINITY, faults: [] };
  server = { ...plain, body: content, type: "application/octet-stream" };
  requests.length = 0;
});

function answer(request: IncomingMessage, response: ServerResponse): void {
  requests.push(`${request.method} ${request.url} ${request.headers.range ?? ""}`);
  const fault = server.faults.shift();
  if (fault !== undefined || request.url !== "/m%20o/file.bin")
    return void response.writeHead(fault ?? 404).end();
  const headers: Record<string, string> = { "Content-Type": server.type };
  if (server.etag !== null) headers.ETag = server.etag;
  const [, first, last] = request.headers.range?.match(/bytes=(\d+)-(\d*)/) ?? [];
  if (!server.ranges || first === undefined) return void response.writeHead(200, headers).end(server.body);
  const begin = Number(first);
  const size = server.body.length;
  if (begin >= size) return void response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
  const end = last === "" ? size : Math.min(size, Number(last) + 1);
  headers["Content-Range"] = `bytes ${begin}-${end - 1}/${size}`;
  headers["Content-Length"] = String(end - begin);
  response.writeHead(206, headers);
  if (end - begin <= server.breakAfter) return void response.end(server.body.subarray(begin, end));
  response.write(server.body.subarray(begin, begin + server.breakAfter), () => response.destroy());
}

const http = createServer(answer).listen(0, "127.0.0.1");
await new Promise((resolve) => http.once("listening", resolve));
const address = `http://127.0.0.1:${(http.address() as AddressInfo).port}/m o`;
afterAll(() => void http.close());

async function open() {
  const source = await urlFolder(address).open("file.bin");
  return source!;
}

async function readAll(source: Awaited<ReturnType<typeof open>>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source.stream!(0)) pieces.push(piece);
  return new Uint8Array(Buffer.concat(pieces));
}

describe("urlFolder", () => {
  it("reads by ranged requests", async () => {
    const source = await open();
    expect([source.size, source.version]).toEqual([300_000, '"a"']);
    const target = new Uint8Array(1000);
    await source.read(250_123, target);
    expect(target).toEqual(content.subarray(250_123, 251_123));
    expect(requests).toEqual([
      "GET /m%20o/file.bin bytes=0-65535",
      "GET /m%20o/file.bin bytes=250123-251122",
    ]);
  });

  it("needs one request for a short file", async () => {
    server.body = content.subarray(0, 500);
    const source = await open();
    const target = new Uint8Array(500);
    await source.read(0, target);
    expect([target, requests.length]).toEqual([content.subarray(0, 500), 1]);
  });

  it("opens an empty file", async () => {
    server.body = new Uint8Array();
    expect((await open()).size).toBe(0);
  });

  it("reads from a server that knows no ranges", async () => {
    server.ranges = false;
    const source = await open();
    const target = new Uint8Array(100);
    await source.read(299_900, target);
    expect([source.size, target]).toEqual([300_000, content.subarray(299_900)]);
  });

  it("streams, and goes on where an answer breaks off", async () => {
    const source = await open();
    server.breakAfter = 70_000;
    expect(await readAll(source)).toEqual(content);
    expect(requests.length).toBeGreaterThanOrEqual(4);
  });

  it("gives up on answers that never bring a byte", async () => {
    const source = await open();
    server.breakAfter = 0;
    await expect(readAll(source)).rejects.toMatchObject({ name: "UserError" });
  });

  it("asks again after passing faults", async () => {
    server.faults = [503];
    expect((await open()).size).toBe(300_000);
  });

  it("notices that the file changed", async () => {
    const source = await open();
    server.etag = '"b"';
    await expect(source.read(100_000, new Uint8Array(10))).rejects.toThrow("changed while it was read");
  });

  it("has no file where the server has none, or a page instead", async () => {
    expect(await urlFolder(address).open("other.bin")).toBeUndefined();
    server.type = "text/html; charset=utf-8";
    expect(await urlFolder(address).open("file.bin")).toBeUndefined();
  });

  it("says what went wrong in one sentence", async () => {
    server.faults = [403];
    await expect(open()).rejects.toThrow(/status 403; it may not be read without permission\.$/);
    const nobody = urlFolder("http://127.0.0.1:1/model");
    await expect(nobody.open("config.json")).rejects.toThrow(
      /config\.json cannot be reached .*check the address/,
    );
    expect(() => urlFolder("ftp://host/model")).toThrow("is not the address of a model");
    const source = await open();
    await expect(source.read(299_999, new Uint8Array(2))).rejects.toThrow("ends before byte 300001");
  });

  it("rejects with what the signal aborts with", async () => {
    const abort = new AbortController();
    const folder = urlFolder(address, { signal: abort.signal });
    abort.abort(new Error("enough"));
    await expect(folder.open("file.bin")).rejects.toThrow("enough");
  });

  it("stands where a folder is wanted: the readers name the address", async () => {
    expect(openFolder(address).name).toBe(address.replace(" ", "%20"));
    await expect(readModelConfig(address)).rejects.toThrow("holds no config.json");
    await expect(openCheckpoint(new URL(address))).rejects.toThrow("holds no weights");
    await expect(openTokenizer(address)).rejects.toThrow("There is no tokenizer.json in http://127.0.0.1");
  });
});
