import { describeValue } from "../base/checks.ts";
import type { DType } from "../base/dtypes.ts";
import { bytesPerElement } from "../base/dtypes.ts";
import { replaceFile, writeFully } from "../files/replace-file.ts";
import { dtypeNames } from "./safetensors-header.ts";

/** A tensor to be written: `data` holds its elements, little-endian, bytesPerElement(dtype) × shape bytes. */
export interface TensorData {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

/** Throws unless the tensors are well formed: names distinct, shapes whole numbers, bytes as the shape says. */
function checkTensors(tensors: readonly TensorData[]): void {
  const names = new Set<string>();
  for (const { name, dtype, shape, data } of tensors) {
    if (name === "__metadata__" || names.has(name)) {
      throw new RangeError(`the name of a tensor must be its own, got ${describeValue(name)} again`);
    }
    names.add(name);
    const expected = shape.reduce((product, size) => product * size, bytesPerElement(dtype));
    if (data.byteLength !== expected || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
      throw new RangeError(
        `tensor ${describeValue(name)} must have ${expected} bytes for ${dtype} [${shape.join(", ")}], got ${data.byteLength}`,
      );
    }
  }
}

/** The length prefix and the header, padded with spaces so that the tensors begin at a multiple of 8. */
function encodeHeader(
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  let position = 0;
  const entries = tensors.map(({ name, dtype, shape, data }): [string, unknown] => {
    const begin = position;
    position += data.byteLength;
    return [name, { dtype: dtypeNames[dtype], shape, data_offsets: [begin, position] }];
  });
  if (Object.keys(metadata).length > 0) entries.unshift(["__metadata__", metadata]);
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  header.set(json, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  return header;
}

/**
 * Writes `tensors` and `metadata` as the safetensors file `path` (Node only), elements of the widest types first so that
 * each tensor is aligned. The file appears under its name only when it is complete. Throws RangeError for a tensor
 * whose bytes do not fit its shape; rejects with a UserError when the file cannot be written.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  checkTensors(tensors);
  const ordered = tensors.toSorted((a, b) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype));
  await replaceFile(path, async (handle) => {
    await writeFully(handle, encodeHeader(ordered, metadata));
    for (const tensor of ordered) await writeFully(handle, tensor.data);
  });
}
