import { encodeFromF32 } from "../../base/convert.ts";
import type { Device } from "../../device/device.ts";
import type { TensorInfo } from "../../formats/safetensors-header.ts";
import { CaseMemory } from "../../kernels/common/cases/case-memory.ts";
import {
  checkLatentWidths,
  type LatentDtype,
  type LatentWidths,
  latentEntryBytes,
} from "../../kernels/common/latent-cache.ts";
import { mlaDecodeWorkspaceBytes } from "../../kernels/common/mla-partials.ts";
import { publicTolerances } from "../../kernels/mla-decode/decode-case.ts";
import { queryDtypeOn } from "../../kernels/mla-decode/mla-decode.cuda.ts";
import { type MlaDecodeTokens, mlaDecode } from "../../kernels/mla-decode/mla-decode.ts";
import type { KernelCaseFile } from "./kernel-case-file.ts";
import type { KernelOperation, KernelOutput } from "./kernel-operation.ts";

interface DecodeSizes {
  readonly batch: number;
  readonly sQ: number;
  readonly heads: number;
  readonly latentWidth: number;
  readonly ropeWidth: number;
  readonly pages: number;
  readonly pageSize: number;
  readonly dtype: LatentDtype;
  /** Name of the tensor that holds the cache. */
  readonly cacheName: string;
  readonly softmaxScale: number;
}

type DecodeTokens = { readonly maxLen: number } & (
  | { readonly mask: "indices"; readonly indices: Int32Array }
  | {
      readonly mask: "causal" | "full";
      readonly blockTable: Int32Array;
      readonly cacheSeqlens: Int32Array;
      readonly maxPages: number;
    }
);

const floats = ["f32", "f16", "bf16"] as const;

/** [pages, page_size, entry], with or without an axis of one head before the entry. */
function readCache(file: KernelCaseFile, widths: LatentWidths) {
  const cacheName = !file.has("kv_cache") && file.has("k_fp8_bytes") ? "k_fp8_bytes" : "kv_cache";
  const oneHead = file.shapeOf(cacheName).length === 4;
  const bytes = ["u8", "fp8_e4m3"] as const;
  const axes = ["pages", "page_size", ...(oneHead ? [1] : [])];
  const tensor: TensorInfo = file.tensor(cacheName, {
    dtypes: [...floats, ...bytes],
    axes: [...axes, "entry"],
  });
  const isFp8 = tensor.dtype === "u8" || tensor.dtype === "fp8_e4m3";
  const entry = isFp8 ? latentEntryBytes("fp8", widths) : widths.latentWidth + widths.ropeWidth;
  const [pages, pageSize] = file.tensor(cacheName, { dtypes: [tensor.dtype], axes: [...axes, entry] }).shape;
  if (file.count("page_size", pageSize) !== pageSize) {
    throw file.fail(
      `its metadata gives page_size ${file.count("page_size")}, ${cacheName} has pages of ${pageSize}`,
    );
  }
  const dtype: LatentDtype = isFp8 ? "fp8" : (tensor.dtype as "f32" | "f16" | "bf16");
  return { cacheName, pages: pages!, pageSize: pageSize!, dtype };
}

function readSizes(file: KernelCaseFile): DecodeSizes {
  const q = file.tensor("q", { dtypes: floats, axes: ["b", "s_q", "h_q", "d_c + d_r"] });
  const [batch, sQ, heads, width] = q.shape as [number, number, number, number];
  const latentWidth = file.count("kv_lora_rank", 512);
  const ropeWidth = width - latentWidth;
  try {
    checkLatentWidths({ latentWidth, ropeWidth });
  } catch {
    throw file.fail(
      `with kv_lora_rank ${latentWidth}, q rows of ${width} leave ${ropeWidth} rotary values; mla-decode takes ` +
        "kv_lora_rank 128, 256 or 512 and 32 or 64 rotary values",
    );
  }
  const cache = readCache(file, { latentWidth, ropeWidth });
  const softmaxScale = file.number("softmax_scale");
  return { batch, sQ, heads, latentWidth, ropeWidth, ...cache, softmaxScale };
}

async function readTokens(file: KernelCaseFile, sizes: DecodeSizes): Promise<DecodeTokens> {
  const { batch, sQ, pages, pageSize } = sizes;
  if (file.has("indices")) {
    const indices = await file.integers("indices", [batch, sQ, "topk"]);
    return { mask: "indices", indices, maxLen: indices.length / (batch * sQ) };
  }
  const blockTable = await file.integers("block_table", [batch, "max_pages"]);
  const cacheSeqlens = await file.integers("cache_seqlens", [batch]);
  const maxPages = blockTable.length / batch;
  cacheSeqlens.forEach((length, b) => {
    if (length < 0 || length > maxPages * pageSize) {
      const room = `a row of block_table holds ${maxPages} pages of ${pageSize}`;
      throw file.fail(`cache_seqlens[${b}] is ${length}, but ${room}`);
    }
    const used = blockTable.subarray(b * maxPages, b * maxPages + Math.ceil(length / pageSize));
    const wrong = used.findIndex((page) => page < 0 || page >= pages);
    if (wrong < 0) return;
    throw file.fail(
      `block_table[${b}, ${wrong}] is ${used[wrong]}, but the cache has pages 0 to ${pages - 1}`,
    );
  });
  const mask = file.flag("causal") ? "causal" : "full";
  return { mask, blockTable, cacheSeqlens, maxPages, maxLen: Math.max(1, ...cacheSeqlens) };
}

function uploadTokens(memory: CaseMemory, tokens: DecodeTokens): MlaDecodeTokens {
  if (tokens.mask === "indices") return { ...tokens, indices: memory.upload("indices", tokens.indices) };
  return {
    ...tokens,
    blockTable: memory.upload("block_table", tokens.blockTable),
    cacheSeqlens: memory.upload("cache_seqlens", tokens.cacheSeqlens),
  };
}

async function run(file: KernelCaseFile, device: Device, sizes: DecodeSizes, tokens: DecodeTokens) {
  const memory = new CaseMemory(device);
  const { batch, sQ, heads, latentWidth, ropeWidth, pages, pageSize, dtype, cacheName } = sizes;
  const rows = batch * sQ * heads;
  const shape = { ...sizes, maxLen: tokens.maxLen };
  try {
    const cache = memory.reserve(cacheName, file.byteLengthOf(cacheName));
    await file.stream(cacheName, (chunk, byteOffset) => device.write(cache, chunk, byteOffset));
    const q = await file.floats("q", { dtypes: floats, axes: [batch, sQ, heads, latentWidth + ropeWidth] });
    const qDtype = queryDtypeOn(device.kind, dtype);
    const args = {
      ...{ ...shape, ...uploadTokens(memory, tokens) },
      q: memory.upload("q", encodeFromF32(q, qDtype)),
      qDtype,
      cache: { buffer: cache, dtype, pageSize, pages },
      workspace: memory.reserve("workspace", mlaDecodeWorkspaceBytes(shape)),
      out: memory.reserve("out", rows * latentWidth * 4),
      lse: memory.reserve("lse", rows * 4),
    };
    await memory.run((launch) => mlaDecode(launch, args));
    return { out: await memory.readFloats(args.out), lse: await memory.readFloats(args.lse) };
  } finally {
    memory.free();
  }
}

function describe(sizes: DecodeSizes, tokens: DecodeTokens): string {
  const { batch, sQ, heads, latentWidth, ropeWidth, dtype, pageSize } = sizes;
  const seen =
    tokens.mask === "indices"
      ? `${tokens.maxLen} indices a token`
      : `${tokens.cacheSeqlens.reduce((sum, length) => sum + length, 0)} cached tokens, ${tokens.mask}`;
  const widths = `${latentWidth} + ${ropeWidth} values`;
  return `b=${batch} s_q=${sQ} h_q=${heads} of ${widths}, ${seen}, ${dtype} cache in pages of ${pageSize}`;
}

/** `mla-decode` of a file: q, kv_cache, and block_table with cache_seqlens, or indices. Writes out and lse. */
export const mlaDecodeOperation: KernelOperation = {
  name: "mla-decode",
  async read(file) {
    const sizes = readSizes(file);
    const tokens = await readTokens(file, sizes);
    const { batch, sQ, heads, latentWidth } = sizes;
    return {
      description: describe(sizes, tokens),
      async run(device): Promise<KernelOutput[]> {
        const { out, lse } = await run(file, device, sizes, tokens);
        return [
          {
            ...{ name: "out", shape: [batch, sQ, heads, latentWidth], data: out },
            ...{ expectedName: "out_f32", tolerance: publicTolerances.out },
          },
          {
            ...{ name: "lse", shape: [batch, sQ, heads], data: lse },
            ...{ expectedName: "lse_f32", tolerance: publicTolerances.lse },
          },
        ];
      },
    };
  },
};
