import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeFromF32 } from "../../src/base/convert.ts";
import { createRandom } from "../../src/base/random.ts";
import { type TensorData, writeSafetensors } from "../../src/formats/safetensors-writer.ts";
import { mlaRowReference } from "../../src/kernels/mla-decode/reference.ts";
import { readTensors } from "../golden/golden-models.ts";
import { kernelGoldens, openKernelGolden, worstViolation } from "../golden/kernel-cases.ts";
import { runCli } from "./run-cli.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "flashmla-cli-kernel-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const decode = (path: string, ...flags: string[]) =>
  runCli(["kernel", "mla-decode", path, "--device", "cpu", ...flags]);

type Tensors = Record<string, Omit<TensorData, "name">>;
type Metadata = Record<string, string>;

/** A small case of widths 128 + 32: two sequences of 5 and 0 tokens, pages of 4, NaN in what is not used. */
function smallCase(qDtype: "f32" | "f16" | "bf16" = "f32", cacheDtype: "f32" | "f16" | "bf16" = "f32") {
  const random = createRandom(9);
  const q = random.normals(2 * 1 * 3 * 160).map((value) => Math.round(value * 16) / 16);
  const cache = random.normals(3 * 4 * 160).map((value) => Math.round(value * 16) / 16);
  cache.fill(Number.NaN, 0, 4 * 160);
  cache.fill(Number.NaN, 9 * 160);
  const tensors: Tensors = {
    q: { dtype: qDtype, shape: [2, 1, 3, 160], data: encodeFromF32(q, qDtype) },
    kv_cache: { dtype: cacheDtype, shape: [3, 4, 160], data: encodeFromF32(cache, cacheDtype) },
    block_table: { dtype: "i32", shape: [2, 2], data: Int32Array.of(1, 2, 2147480000, -5) },
    cache_seqlens: { dtype: "i32", shape: [2], data: Int32Array.of(5, 0) },
  };
  const metadata: Metadata = { softmax_scale: "0.1", causal: "True", page_size: "4", kv_lora_rank: "128" };
  const tokens = [4, 5, 6, 7, 8].map((slot) => cache.subarray(slot * 160, (slot + 1) * 160));
  const expected = [0, 1, 2].map((head) =>
    mlaRowReference({
      ...{ query: q.subarray(head * 160, (head + 1) * 160), tokens, latentWidth: 128, softmaxScale: 0.1 },
    }),
  );
  return { tensors, metadata, expected };
}

async function save(tensors: Tensors, metadata: Metadata): Promise<string> {
  const path = join(folder, `${crypto.randomUUID()}.safetensors`);
  const list = Object.entries(tensors).map(([name, tensor]) => ({ name, ...tensor }));
  await writeSafetensors(path, list, metadata);
  return path;
}

async function expectSmall(path: string, { expected }: ReturnType<typeof smallCase>): Promise<void> {
  const target = join(folder, "small-out.safetensors");
  expect((await decode(path, "--out", target)).stderr).not.toMatch(/error/);
  const tensors = readTensors(target);
  const [out, lse] = [tensors.get("out")!, tensors.get("lse")!];
  expected.forEach((row, head) => {
    row.out.forEach((value, i) => {
      expect(Math.abs(out[head * 128 + i]! - value)).toBeLessThan(2e-6);
    });
    expect(Math.abs(lse[head]! - row.lse)).toBeLessThan(2e-6);
  });
  expect(out.subarray(3 * 128)).toEqual(new Float32Array(3 * 128));
  expect([...lse.subarray(3)]).toEqual([Infinity, Infinity, Infinity]);
}

describe("kernel mla-decode", () => {
  it.each(kernelGoldens)(
    "%s: writes out and lse as float32 and agrees with its golden results",
    async (name) => {
      const golden = openKernelGolden(name);
      const target = join(folder, `${name}-out.safetensors`);
      const { code, stdout, stderr } = await decode(golden.path, "--out", target, "--check");
      expect(code, stderr).toBe(0);
      expect(stdout).toMatch(
        /^out: worst error .* pass\nlse: worst error .* pass\nout \[.*\] and lse \[.*\] written to/,
      );
      const expected = readTensors(golden.path);
      const made = readTensors(target);
      golden.close();
      expect([...made.keys()].sort()).toEqual(["lse", "out"]);
      for (const output of ["out", "lse"] as const) {
        expect(worstViolation(output, made.get(output)!, expected.get(`${output}_f32`)!)).toBeLessThan(1);
      }
      const header = readFileSync(target).toString("latin1", 8, 300);
      expect(header.match(/"F32"/g)).toHaveLength(2);
    },
  );

  it.each([
    ["f32", "f32"],
    ["f16", "f32"],
    ["bf16", "bf16"],
    ["f32", "f16"],
  ] as const)("takes q in %s and a cache in %s", async (q, cache) => {
    const made = smallCase(q, cache);
    await expectSmall(await save(made.tensors, made.metadata), made);
  });

  it("takes an axis of one head in the cache, int64 tables and no page_size", async () => {
    const made = smallCase();
    const { kv_cache, block_table, cache_seqlens } = made.tensors;
    const wide = (tensor: (typeof made.tensors)[string]) => ({
      ...{ dtype: "i64" as const, shape: tensor.shape },
      data: BigInt64Array.from(tensor.data as Int32Array, BigInt),
    });
    const tensors = {
      ...made.tensors,
      kv_cache: { ...kv_cache!, shape: [3, 4, 1, 160] },
      block_table: wide(block_table!),
      cache_seqlens: wide(cache_seqlens!),
    };
    const { page_size, ...metadata } = made.metadata;
    expect(page_size).toBe("4");
    await expectSmall(await save(tensors, metadata), made);
  });

  it("lets indices replace the block table", async () => {
    const made = smallCase();
    const { q, kv_cache } = made.tensors;
    const data = Int32Array.of(8, -1, 4, 5, 7, 6, -1, -1, -1, -1, -1, -1);
    const indices = { dtype: "i32", shape: [2, 1, 6], data } as const;
    await expectSmall(await save({ q: q!, kv_cache: kv_cache!, indices }, made.metadata), made);
  });

  it("takes a uint8 kv_cache of 656-byte entries for fp8", async () => {
    const golden = openKernelGolden("fp8_sparse");
    const renamed = join(folder, "renamed.safetensors");
    // Two names of equal length once the longer is padded by what JSON allows between a name and its colon.
    const bytes = readFileSync(golden.path);
    const at = bytes.indexOf('"k_fp8_bytes"');
    bytes.write('"kv_cache"   ', at, "latin1");
    writeFileSync(renamed, bytes);
    golden.close();
    expect((await decode(renamed, "--check")).code).toBe(0);
  });

  it("--check fails a case whose own results are others, --json says how far off they are", async () => {
    const { tensors, metadata } = smallCase();
    const lse = new Float32Array(6).fill(Number.POSITIVE_INFINITY);
    const results: Tensors = {
      out_f32: { dtype: "f32", shape: [2, 1, 3, 128], data: new Float32Array(768) },
      lse_f32: { dtype: "f32", shape: [2, 1, 3], data: lse },
    };
    const path = await save({ ...tensors, ...results }, metadata);
    const { code, stdout } = await decode(path, "--check", "--json");
    expect(code).toBe(1);
    const report = JSON.parse(stdout) as { findings: { output: string; problem: string }[] };
    expect(report.findings.map(({ output }) => output)).toEqual(["out", "lse"]);
    expect(report.findings[0]!.problem).toMatch(/float64 has 0/);
    expect(report.findings[1]!.problem).toMatch(/where Infinity belongs/);
  });

  it("explains the tensors and the metadata in its help", async () => {
    const { code, stdout } = await runCli(["kernel", "--help"]);
    expect(code).toBe(0);
    for (const word of [
      "kv_cache",
      "block_table",
      "cache_seqlens",
      "indices",
      "softmax_scale",
      "kv_lora_rank",
    ]) {
      expect(stdout).toContain(word);
    }
  });
});

describe("a case that cannot be run: one sentence, exit code 1, nothing written", () => {
  const small = smallCase();
  const replace = (name: string, change: Partial<TensorData>): Tensors => ({
    ...small.tensors,
    [name]: { ...small.tensors[name]!, ...change },
  });
  const without = (name: string): Tensors => {
    const { [name]: gone, ...rest } = small.tensors;
    expect(gone).toBeDefined();
    return rest;
  };
  const table = (...pages: number[]) => replace("block_table", { data: Int32Array.from(pages) });
  const lengths = (...values: number[]) => replace("cache_seqlens", { data: Int32Array.from(values) });
  const bytes = { dtype: "u8", shape: [3, 4, 160], data: new Uint8Array(1920) } as const;

  const cases: [string, Tensors, Metadata, RegExp][] = [
    ["no q", without("q"), {}, /has no tensor "q"/],
    ["q of integers", replace("q", { dtype: "i32" }), {}, /q must be f32 or f16 or bf16, it is i32/],
    [
      "q of three axes",
      replace("q", { shape: [2, 3, 160] }),
      {},
      /q must have the shape \[b, s_q, h_q, d_c \+ d_r\]/,
    ],
    ["no cache", without("kv_cache"), {}, /has no tensor "kv_cache"/],
    [
      "narrow entries",
      replace("kv_cache", { shape: [3, 8, 80] }),
      {},
      /kv_cache must have .*, 160\], it has \[3, 8, 80\]/,
    ],
    [
      "bytes of another length",
      replace("kv_cache", bytes),
      {},
      /kv_cache must have .*196\], it has \[3, 4, 160\]/,
    ],
    [
      "another rank",
      small.tensors,
      { kv_lora_rank: "100" },
      /kv_lora_rank 100, q rows of 160 leave 60 rotary values/,
    ],
    ["a rank that is none", small.tensors, { kv_lora_rank: "-1.5" }, /kv_lora_rank as a whole number/],
    ["no scale", small.tensors, { softmax_scale: "" }, /softmax_scale as a number/],
    [
      "a scale of words",
      small.tensors,
      { softmax_scale: "big" },
      /softmax_scale as a number, it gives "big"/,
    ],
    ["a flag of words", small.tensors, { causal: "maybe" }, /causal as true or false, it gives "maybe"/],
    ["another page size", small.tensors, { page_size: "64" }, /page_size 64, kv_cache has pages of 4/],
    ["no block table", without("block_table"), {}, /has no tensor "block_table"/],
    [
      "a table of another batch",
      replace("block_table", { shape: [4, 1] }),
      {},
      /block_table must have .*\[2, max_pages\]/,
    ],
    ["lengths of floats", replace("cache_seqlens", { dtype: "f32" }), {}, /cache_seqlens must be i32 or i64/],
    [
      "a page outside the cache",
      table(1, 3, 0, 0),
      {},
      /block_table\[0, 1\] is 3, but the cache has pages 0 to 2/,
    ],
    ["a negative page in use", table(-1, 2, 0, 0), {}, /block_table\[0, 0\] is -1/],
    [
      "a length past the table",
      lengths(5, 9),
      {},
      /cache_seqlens\[1\] is 9, but a row of block_table holds 2 pages of 4/,
    ],
    ["a negative length", lengths(-1, 0), {}, /cache_seqlens\[0\] is -1/],
    [
      "indices of another batch",
      { ...small.tensors, indices: { dtype: "i32", shape: [1, 1, 2], data: Int32Array.of(0, 1) } },
      {},
      /indices must have the shape \[2, 1, topk\]/,
    ],
  ];

  it.each(cases)("%s", async (_name, tensors, metadata, message) => {
    const path = await save(tensors, { ...small.metadata, ...metadata });
    await expectRefused(["mla-decode", path], message);
  });

  async function expectRefused(
    parameters: string[],
    message: RegExp,
    out = join(folder, "never.safetensors"),
  ) {
    const { code, stdout, stderr } = await runCli(["kernel", ...parameters, "--device", "cpu", "--out", out]);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toMatch(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stderr).not.toMatch(/--verbose|\bat .*\.js/);
    expect(existsSync(join(folder, "never.safetensors"))).toBe(false);
    expect(readdirSync(folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  }

  it("no file, half a file, a file of something else", async () => {
    await expectRefused(
      ["mla-decode", join(folder, "none.safetensors")],
      /none.safetensors: there is no such file/,
    );
    const path = await save(small.tensors, small.metadata);
    writeFileSync(path, readFileSync(path).subarray(0, 5000));
    await expectRefused(["mla-decode", path], /ends \d+ bytes past the end of the file/);
    writeFileSync(path, "{ this is no safetensors file }");
    await expectRefused(["mla-decode", path], /is not a valid safetensors file/);
  });

  it("an operation that does not exist: the others are listed", async () => {
    const path = await save(small.tensors, small.metadata);
    await expectRefused(["mla-encode", path], /no operation "mla-encode"; the operations are: mla-decode/);
  });

  it("no place for the result: the case itself, a folder, or one that does not exist", async () => {
    const path = await save(small.tensors, small.metadata);
    const before = readFileSync(path);
    await expectRefused(["mla-decode", path], /is the case itself/, path);
    expect(readFileSync(path).equals(before)).toBe(true);
    await expectRefused(["mla-decode", path], /is there and no file/, folder);
    await expectRefused(["mla-decode", path], /there is no folder/, join(folder, "no", "out.safetensors"));
    const { code, stderr } = await decode(path);
    expect(code).toBe(1);
    expect(stderr).toMatch(/--out/);
  });

  it("an out file that was there before stays as it was", async () => {
    const out = join(folder, "kept.safetensors");
    writeFileSync(out, "kept");
    const path = await save(lengths(99, 0), small.metadata);
    await expectRefused(["mla-decode", path], /cache_seqlens/, out);
    expect(readFileSync(out, "utf8")).toBe("kept");
  });
});
