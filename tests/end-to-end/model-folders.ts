import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The model that ships with the package. */
export const shipped = join(import.meta.dirname, "..", "..", "models", "shakespeare-mla");

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Folders made for one test file. */
export class ModelFolders {
  readonly #root = mkdtempSync(join(tmpdir(), "flashmla-models-"));
  #count = 0;

  /** A copy of the shipped model that `change` then spoils. */
  spoiled(change: (folder: string) => void): string {
    const folder = join(this.#root, String(this.#count++));
    cpSync(shipped, folder, { recursive: true });
    change(folder);
    return folder;
  }

  remove(): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}

/** Changes fields of the folder's config.json; undefined removes one. */
export function changeConfig(folder: string, fields: Record<string, unknown>): void {
  const path = join(folder, "config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...fields }));
}

/** Rewrites the header of the folder's weights, keeping their bytes. */
export function changeHeader(folder: string, change: (header: Header) => void): void {
  const path = join(folder, "model.safetensors");
  const file = readFileSync(path);
  const end = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, end)) as Header;
  change(header);
  writeWeights(path, header, file.subarray(end));
}

function writeWeights(path: string, header: object, data: Uint8Array): void {
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, json, data]));
}

/** Every tensor of the folder's weights with its shape. */
function shapesOf(folder: string): Map<string, number[]> {
  const file = readFileSync(join(folder, "model.safetensors"));
  const header = JSON.parse(file.toString("utf8", 8, 8 + Number(file.readBigUInt64LE(0))));
  const entries = Object.entries<{ shape: number[] }>(header).filter(([name]) => name !== "__metadata__");
  return new Map(entries.map(([name, { shape }]) => [name, shape]));
}

/** A sparse file of zeros that holds one bf16 tensor for every name and shape. */
function writeSparseWeights(path: string, shapes: ReadonlyMap<string, readonly number[]>): void {
  let end = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of shapes) {
    const start = end;
    end += shape.reduce((size, length) => size * length, 2);
    header[name] = { dtype: "BF16", shape, data_offsets: [start, end] };
  }
  writeWeights(path, header, new Uint8Array());
  truncateSync(path, readFileSync(path).length + end);
}

/** Gives the folder's model MLPs of that width, all weights zeros of a sparse file: 1536 · `width` bytes a layer. */
export function writeWideWeights(folder: string, width: number): void {
  const shapes = shapesOf(folder);
  for (const [name, [rows = 0, columns = 0]] of shapes) {
    if (/mlp\.(gate|up)_proj/.test(name)) shapes.set(name, [width, columns]);
    if (name.includes("mlp.down_proj")) shapes.set(name, [rows, width]);
  }
  changeConfig(folder, { intermediate_size: width });
  writeSparseWeights(join(folder, "model.safetensors"), shapes);
}
