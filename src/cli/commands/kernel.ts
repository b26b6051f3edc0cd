import { existsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import { openDevice } from "../../device/open.ts";
import { writeSafetensors } from "../../formats/safetensors-writer.ts";
import type { Finding } from "../../kernels/common/cases/kernel-case.ts";
import { integerFlag } from "../flags.ts";
import { deviceOption } from "../model-flags.ts";
import { note, paint, printJson, printLine } from "../output.ts";
import { KernelCaseFile } from "./kernel-case-file.ts";
import { mlaDecodeOperation } from "./kernel-mla-decode.ts";
import { checkOutputs, type KernelOutput } from "./kernel-operation.ts";

interface KernelFlags {
  readonly out?: string;
  readonly device?: string;
  readonly threads?: number;
  readonly check?: boolean;
  readonly json?: boolean;
}

const operations = [mlaDecodeOperation];

const help = `
Operations:
  mla-decode   attention of absorbed queries over the paged latent cache

A case of mla-decode is a safetensors file of these tensors (d_c = kv_lora_rank, d_r = rotary values):
  q              [b, s_q, h_q, d_c + d_r]          bf16, f16 or f32
  kv_cache       [pages, page_size, d_c + d_r]     bf16, f16 or f32; or uint8 [pages, page_size, 656]: fp8 entries of
                                                   512 + 64 values (d_c + d_c/32 + 2·d_r bytes for other widths)
  block_table    [b, max_pages]                    int32; entries past a sequence's pages may hold anything
  cache_seqlens  [b]                               int32: cached tokens, those of the queries included
  indices        [b, s_q, topk]                    int32: page · page_size + offset, −1 for none; in place of block_table
                                                   and cache_seqlens, and then "causal" plays no part
and of this metadata: softmax_scale; causal (true or false, default false); kv_lora_rank (default 512); page_size
(default: what kv_cache has).
It writes out [b, s_q, h_q, d_c] and lse [b, s_q, h_q] as float32: lse is the natural log-sum-exp of the scaled scores; a
query that sees no token gives out = 0 and lse = +inf. The file appears when it is complete, or not at all.

Examples:
  flashmla kernel mla-decode case.safetensors --out out.safetensors
  flashmla kernel mla-decode golden.safetensors --device cpu --check   compares with its out_f32 and lse_f32`;

function findOperation(name: string) {
  const operation = operations.find((one) => one.name === name);
  if (operation !== undefined) return operation;
  const names = operations.map((one) => one.name).join(", ");
  throw new UserError(`There is no operation ${JSON.stringify(name)}; the operations are: ${names}.`);
}

/** Complains before any work is done about a place where nothing could be written. */
function checkOut(out: string | undefined, path: string): void {
  if (out === undefined) return;
  if (resolve(out) === resolve(path)) {
    throw new UserError(`--out ${out} is the case itself; name another file.`);
  }
  const folder = dirname(resolve(out));
  if (!existsSync(folder)) throw new UserError(`--out ${out}: there is no folder ${folder}; make it first.`);
  if (statSync(out, { throwIfNoEntry: false })?.isFile() === false) {
    throw new UserError(`--out ${out} is there and no file; name a file.`);
  }
}

async function write(out: string, outputs: readonly KernelOutput[]): Promise<void> {
  // A signal ends the process without its exit handlers, of which one removes the half-written file.
  const onSignal = () => process.exit(130);
  process.once("SIGINT", onSignal);
  try {
    await writeSafetensors(
      out,
      outputs.map(({ name, shape, data }) => ({ name, shape, data, dtype: "f32" })),
    );
  } finally {
    process.off("SIGINT", onSignal);
  }
}

function printFinding({ output, absolute, relative, cosine, problem }: Finding): void {
  const errors = [absolute, relative, cosine].map((value) => value.toExponential(1));
  const verdict = problem === null ? paint.green("pass") : `${paint.red("FAILED")}: ${problem}`;
  printLine(
    `${output}: worst error ${errors[0]} absolute, ${errors[1]} relative, 1 − cosine ${errors[2]}: ${verdict}`,
  );
}

async function runKernel(name: string, path: string, flags: KernelFlags): Promise<void> {
  const operation = findOperation(name);
  if (flags.out === undefined && !flags.check) {
    throw new UserError("Say where the result goes with --out out.safetensors, or give --check.");
  }
  checkOut(flags.out, path);
  const file = await KernelCaseFile.open(path);
  try {
    const read = await operation.read(file);
    const threads = flags.threads === undefined ? {} : { threads: flags.threads };
    const device = await openDevice({ kind: flags.device, ...threads });
    try {
      note(`${name} on ${device.name}: ${read.description}`);
      const outputs = await read.run(device);
      const findings = flags.check ? await checkOutputs(file, outputs) : undefined;
      if (flags.out !== undefined) await write(flags.out, outputs);
      report(name, device.name, flags, outputs, findings);
    } finally {
      await device.close();
    }
  } finally {
    await file.close();
  }
}

function report(
  operation: string,
  device: string,
  { out, json }: KernelFlags,
  outputs: readonly KernelOutput[],
  findings: readonly Finding[] = [],
): void {
  if (findings.some(({ problem }) => problem !== null)) process.exitCode = 1;
  const shapes = Object.fromEntries(outputs.map(({ name, shape }) => [name, shape]));
  if (json) {
    printJson({ operation, device, out: out ?? null, shapes, findings });
    return;
  }
  for (const finding of findings) printFinding(finding);
  if (out === undefined) return;
  const written = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(" and ");
  printLine(`${written} written to ${out}`);
}

/** Adds `flashmla kernel`: one kernel on the tensors of a file. */
export function addKernelCommand(program: Command): void {
  program
    .command("kernel")
    .description("Run one kernel on the tensors of a safetensors file.")
    .argument("<operation>", `what to run: ${operations.map(({ name }) => name).join(", ")}`)
    .argument("<case>", "the safetensors file with its inputs")
    .option("--out <file>", "the safetensors file to write")
    .addOption(deviceOption())
    .option("--threads <n>", "threads of the CPU device; default: all processors", integerFlag(1, 256))
    .option("--check", "compare with the case's own out_f32 and lse_f32; exit code 1 when they disagree")
    .option("--json", "print one JSON object")
    .addHelpText("after", help)
    .action(runKernel);
}
