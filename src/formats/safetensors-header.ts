import type { DType } from "../base/dtypes.ts";
import { bytesPerElement } from "../base/dtypes.ts";
import { UserError } from "../base/errors.ts";
import { findDuplicateKey } from "./duplicate-keys.ts";

/** The longest header that is read, in bytes: the format's own limit. */
export const largestHeader = 100_000_000;

/** One tensor of a checkpoint. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Product of the shape times the bytes of one element. */
  readonly byteLength: number;
  /** Where its bytes begin, from the start of its file. */
  readonly byteOffset: number;
}

/** What the header of a safetensors file says. */
export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** The format's names of the element types. */
export const dtypeNames: Readonly<Record<DType, string>> = {
  f64: "F64",
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
  fp8_e4m3: "F8_E4M3",
  fp8_e5m2: "F8_E5M2",
  i64: "I64",
  i32: "I32",
  i16: "I16",
  i8: "I8",
  u64: "U64",
  u32: "U32",
  u16: "U16",
  u8: "U8",
  bool: "BOOL",
};

const dtypeOfName = new Map(Object.entries(dtypeNames).map(([dtype, name]) => [name, dtype as DType]));

/** The UserError of a file that breaks the format: `file` is not a valid safetensors file: `what`. */
export function invalidSafetensors(file: string, what: string): UserError {
  return new UserError(`${file} is not a valid safetensors file: ${what}; download or export it again`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** A value of the header, short enough for a message. */
function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function parseObject(file: string, bytes: Uint8Array): Record<string, unknown> {
  let parsed: unknown;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    parsed = JSON.parse(text);
  } catch {
    throw invalidSafetensors(file, "its header is not JSON");
  }
  if (!isObject(parsed) || bytes[0] !== 0x7b)
    throw invalidSafetensors(file, "its header is not a JSON object");
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined)
    throw invalidSafetensors(file, `its header has the key ${quote(duplicate)} twice`);
  return parsed;
}

function parseMetadata(file: string, value: unknown): Map<string, string> {
  if (value === undefined) return new Map();
  if (!isObject(value)) throw invalidSafetensors(file, "its __metadata__ is not an object");
  const metadata = new Map<string, string>();
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry !== "string") {
      throw invalidSafetensors(file, `the entry ${quote(key)} of its __metadata__ is not a string`);
    }
    metadata.set(key, entry);
  }
  return metadata;
}

function parseTensor(file: string, name: string, value: unknown, dataStart: number): TensorInfo {
  const fail = (what: string) => invalidSafetensors(file, `tensor ${quote(name)} ${what}`);
  if (!isObject(value)) throw fail("is not described by an object");
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  const dtype = typeof dtypeName === "string" ? dtypeOfName.get(dtypeName) : undefined;
  if (dtype === undefined) throw fail(`has the unknown dtype ${quote(dtypeName)}`);
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw fail(`has the shape ${quote(shape)}, not a list of whole numbers`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw fail(`has the data_offsets ${quote(offsets)}, not two whole numbers`);
  }
  const [begin, end] = offsets as [number, number];
  const byteLength = (shape as number[]).reduce((product, size) => product * size, bytesPerElement(dtype));
  if (!Number.isSafeInteger(byteLength))
    throw fail(`has the shape ${quote(shape)}, more than can be addressed`);
  if (begin > end) throw fail(`begins at byte ${begin} and ends before it, at ${end}`);
  if (end - begin !== byteLength) {
    throw fail(`has ${end - begin} bytes where ${dtypeName} of shape ${quote(shape)} takes ${byteLength}`);
  }
  return { name, dtype, shape, byteLength, byteOffset: dataStart + begin };
}

/** The tensors must fill the rest of the file one after the other: no overlap, no gap, nothing past the end. */
function checkLayout(
  file: string,
  tensors: readonly TensorInfo[],
  dataStart: number,
  fileSize: number,
): void {
  let position = dataStart;
  let previous = "";
  for (const { name, byteOffset, byteLength } of tensors) {
    if (byteOffset + byteLength > fileSize) {
      const missing = byteOffset + byteLength - fileSize;
      throw invalidSafetensors(file, `tensor ${quote(name)} ends ${missing} bytes past the end of the file`);
    }
    if (byteOffset < position) {
      throw invalidSafetensors(file, `tensor ${quote(name)} overlaps tensor ${quote(previous)}`);
    }
    if (byteOffset > position) {
      throw invalidSafetensors(
        file,
        `${byteOffset - position} bytes before tensor ${quote(name)} belong to no tensor`,
      );
    }
    position += byteLength;
    previous = name;
  }
  if (position !== fileSize) {
    throw invalidSafetensors(file, `its last ${fileSize - position} bytes belong to no tensor`);
  }
}

/**
 * Reads the JSON header `bytes` of the safetensors file called `file`, whose tensors' bytes begin at `dataStart` and
 * go up to `fileSize`. Throws a UserError for whatever breaks the format, naming the file and the tensor.
 */
export function parseSafetensorsHeader(
  file: string,
  bytes: Uint8Array,
  { dataStart, fileSize }: { readonly dataStart: number; readonly fileSize: number },
): SafetensorsHeader {
  const { __metadata__: metadata, ...entries } = parseObject(file, bytes);
  const tensors = Object.entries(entries)
    .map(([name, value]) => parseTensor(file, name, value, dataStart))
    .sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  checkLayout(file, tensors, dataStart, fileSize);
  return {
    metadata: parseMetadata(file, metadata),
    tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])),
  };
}
