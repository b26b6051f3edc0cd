import { UserError } from "../../base/errors.ts";
import type { CudaMatmul } from "../device.ts";
import type { NativeFunction, NativeLibrary } from "./library.ts";

const handle = "uint64_t";
const pointer = "void *";

const functions = {
  cublasLtCreate: [pointer],
  cublasLtDestroy: [handle],
  cublasLtMatmulDescCreate: [pointer, "int", "int"],
  cublasLtMatmulDescDestroy: [handle],
  cublasLtMatmulDescSetAttribute: [handle, "int", pointer, "size_t"],
  cublasLtMatrixLayoutCreate: [pointer, "int", "uint64_t", "uint64_t", "int64_t"],
  cublasLtMatrixLayoutSetAttribute: [handle, "int", pointer, "size_t"],
  cublasLtMatrixLayoutDestroy: [handle],
  cublasLtMatmulPreferenceCreate: [pointer],
  cublasLtMatmulPreferenceDestroy: [handle],
  cublasLtMatmulPreferenceSetAttribute: [handle, "int", pointer, "size_t"],
  cublasLtMatmulAlgoGetHeuristic: [
    ...[handle, handle, handle, handle, handle, handle, handle],
    ...["int", pointer, pointer],
  ],
  cublasLtMatmul: [
    ...[handle, handle, pointer, handle, handle, handle, handle, pointer],
    ...[handle, handle, handle, handle, pointer, handle, "size_t", handle],
  ],
} as const;
type FunctionName = keyof typeof functions;

/** cudaDataType_t. */
const dataTypes = { f32: 0, f16: 2, bf16: 14 } as const;
/** CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT and CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET. */
const BATCH_COUNT = 5;
const BATCH_OFFSET = 6;
/** CUBLAS_COMPUTE_32F, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES. */
const COMPUTE_F32 = 68;
const TRANSPOSE_A = 3;
const TRANSPOSED = 1;
const MOST_WORKSPACE = 1;
/** sizeof(cublasLtMatmulHeuristicResult_t): the algorithm's 64 bytes come first. */
const RESULT_BYTES = 96;

/** Bytes of memory that products may use for themselves while they run. */
export const CUBLAS_WORKSPACE_BYTES = 32 * 2 ** 20;

const statusNames: Readonly<Record<number, string>> = {
  1: "it could not be initialised",
  3: "it ran out of memory",
  7: "a value is not supported",
  8: "the GPU is not supported",
  13: "the work on the GPU failed",
  14: "an internal error",
  15: "the shape or type is not supported",
};

/** A product that is ready to be enqueued. */
interface PlannedMatmul {
  readonly description: bigint;
  readonly weight: bigint;
  readonly x: bigint;
  readonly out: bigint;
  readonly algorithm: Uint8Array;
  readonly alpha: Float32Array;
  readonly beta: Float32Array;
}

/** Device addresses of one product. */
export interface MatmulAddresses {
  readonly x: bigint;
  readonly weight: bigint;
  readonly out: bigint;
  readonly workspace: bigint;
}

/** cuBLASLt with the plans of the shapes seen so far; belongs to the context that was current when it was made. */
export class CublasLt {
  readonly #bound: Map<string, NativeFunction>;
  readonly #handle: bigint;
  readonly #plans = new Map<string, PlannedMatmul>();

  /** Throws UserError when the library lacks a function or does not start. */
  constructor(library: NativeLibrary) {
    try {
      this.#bound = new Map(
        Object.entries(functions).map(([name, parameters]) => [name, library.bind(name, parameters)]),
      );
    } catch (cause) {
      throw new UserError("NVIDIA's cuBLASLt here is too old; install version 12 or 13.", { cause });
    }
    this.#handle = this.#create("cublasLtCreate");
  }

  /** Enqueues one product on `stream`. */
  enqueue(matmul: CudaMatmul, { x, weight, out, workspace }: MatmulAddresses, stream: bigint): void {
    const plan = this.#plan(matmul);
    // Column by column, as cuBLAS thinks: outᵀ = W · xᵀ, with W's rows as columns of what is then transposed.
    const operands = [
      plan.alpha,
      weight,
      plan.weight,
      x,
      plan.x,
      plan.beta,
      out,
      plan.out,
      out,
      plan.out,
    ] as const;
    const memory = [plan.algorithm, workspace, CUBLAS_WORKSPACE_BYTES, stream] as const;
    this.#call("cublasLtMatmul", this.#handle, plan.description, ...operands, ...memory);
  }

  #plan(matmul: CudaMatmul): PlannedMatmul {
    const key = JSON.stringify(matmul);
    const known = this.#plans.get(key);
    if (known !== undefined) return known;
    const { scale, mode, batch } = matmul;
    const description = this.#create("cublasLtMatmulDescCreate", COMPUTE_F32, dataTypes.f32);
    const transposed = Int32Array.of(batch?.weightByInputs ? 0 : TRANSPOSED);
    this.#call("cublasLtMatmulDescSetAttribute", description, TRANSPOSE_A, transposed, 4);
    const layouts = this.#layouts(matmul);
    const plan = {
      ...{ description, ...layouts, algorithm: this.#choose(description, layouts, matmul) },
      alpha: Float32Array.of(scale),
      beta: Float32Array.of(mode === "accumulate" ? 1 : 0),
    };
    this.#plans.set(key, plan);
    return plan;
  }

  #layouts({ rows, inputs, outputs, inputType, outType, batch }: CudaMatmul) {
    const layout = (
      type: keyof typeof dataTypes,
      [height, width]: readonly [number, number],
      pitch = height,
      stride = 0,
    ) => {
      const made = this.#create("cublasLtMatrixLayoutCreate", dataTypes[type], height, width, pitch);
      if (batch === undefined) return made;
      const [count, offset] = [Int32Array.of(batch.count), BigInt64Array.of(BigInt(stride))];
      this.#call("cublasLtMatrixLayoutSetAttribute", made, BATCH_COUNT, count, 4);
      this.#call("cublasLtMatrixLayoutSetAttribute", made, BATCH_OFFSET, offset, 8);
      return made;
    };
    const weight = batch?.weightByInputs ? ([outputs, inputs] as const) : ([inputs, outputs] as const);
    return {
      weight: layout(inputType, weight, weight[0], batch?.weightStride),
      x: layout(inputType, [inputs, rows], batch?.xPitch, batch?.xStride),
      out: layout(outType, [outputs, rows], batch?.outPitch, batch?.outStride),
    };
  }

  /** The algorithm that the library's heuristics put first. */
  #choose(
    description: bigint,
    { weight, x, out }: Pick<PlannedMatmul, "weight" | "x" | "out">,
    { rows, inputs, outputs }: CudaMatmul,
  ): Uint8Array {
    const preference = this.#create("cublasLtMatmulPreferenceCreate");
    const most = BigUint64Array.of(BigInt(CUBLAS_WORKSPACE_BYTES));
    this.#call("cublasLtMatmulPreferenceSetAttribute", preference, MOST_WORKSPACE, most, 8);
    const [result, found] = [new Uint8Array(RESULT_BYTES), new Int32Array(1)];
    const operands = [this.#handle, description, weight, x, out, out, preference] as const;
    this.#call("cublasLtMatmulAlgoGetHeuristic", ...operands, 1, result, found);
    this.#call("cublasLtMatmulPreferenceDestroy", preference);
    if (found[0] === 0) {
      throw new UserError(`cuBLASLt has no algorithm for [${rows}, ${inputs}] · [${inputs}, ${outputs}].`);
    }
    return result.slice(0, 64);
  }

  /** Calls a function whose first parameter points to a handle that it makes. */
  #create(name: FunctionName, ...values: Parameters<NativeFunction>): bigint {
    const made = new BigUint64Array(1);
    this.#call(name, made, ...values);
    return made[0] ?? 0n;
  }

  #call(name: FunctionName, ...values: Parameters<NativeFunction>): void {
    const status = this.#bound.get(name)?.(...values);
    if (status === 0) return;
    throw new UserError(`cuBLASLt failed in ${name}: ${statusNames[status ?? -1] ?? `status ${status}`}.`);
  }

  /** Gives everything back; the context must still be there. */
  close(): void {
    for (const { description, weight, x, out } of this.#plans.values()) {
      this.#call("cublasLtMatmulDescDestroy", description);
      for (const layout of [weight, x, out]) this.#call("cublasLtMatrixLayoutDestroy", layout);
    }
    this.#plans.clear();
    this.#call("cublasLtDestroy", this.#handle);
  }
}
