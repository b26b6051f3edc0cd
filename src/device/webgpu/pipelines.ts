import { UserError } from "../../base/errors.ts";
import type { KernelSource } from "../device.ts";
import { overlap, type WebGpuBuffer } from "./webgpu-buffer.ts";
import { type Access, assemble, declaredBindings, declareWritten, scratchAccess } from "./wgsl.ts";

/** GPUShaderStage.COMPUTE. */
const COMPUTE = 4;

/** A kernel compiled for one specialisation. */
export interface Pipeline {
  readonly gpu: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** The bindings that the code declares: in place, what is read is declared by what is written alone. */
  readonly bindings: ReadonlyMap<number, Access>;
  readonly usesScratch: boolean;
}

interface Code {
  readonly text: string;
  readonly bindings: ReadonlyMap<number, Access>;
}

/** Compiled kernels of one device, by their specialisation. */
export class Pipelines {
  readonly #device: GPUDevice;
  readonly #enabled: ReadonlySet<string>;
  readonly #code = new Map<string, Code>();
  readonly #pipelines = new Map<string, Pipeline>();

  constructor(device: GPUDevice, enabled: ReadonlySet<string>) {
    this.#device = device;
    this.#enabled = enabled;
  }

  /** How many specialisations have been compiled. */
  get size(): number {
    return this.#pipelines.size;
  }

  /**
   * The pipeline for a launch with these buffers. Throws UserError for a kernel without WGSL or one that needs what this
   * device lacks, RangeError for buffers that overlap where the kernel does not allow it.
   */
  pipeline(source: KernelSource, buffers: readonly WebGpuBuffer[]): Pipeline {
    const inPlace = this.#isInPlace(source, buffers);
    const code = this.#codeOf(source, inPlace);
    const written = mixedBindings(code, buffers);
    const key = `${this.#key(source, inPlace)} ${[...written].join()}`;
    const known = this.#pipelines.get(key);
    if (known !== undefined) return known;
    const made = this.#create(source, code, written);
    this.#pipelines.set(key, made);
    return made;
  }

  #key({ name, webgpu, buffers, scalars }: KernelSource, inPlace: boolean): string {
    const { code, entryPoint, constants } = webgpu!;
    return JSON.stringify([name, code.name, entryPoint, constants, buffers.length, scalars, inPlace]);
  }

  /** Whether a buffer that the kernel reads is one that it writes, so that one binding has to serve for both. */
  #isInPlace(source: KernelSource, buffers: readonly WebGpuBuffer[]): boolean {
    const { bindings } = this.#codeOf(source, false);
    const found = [...bindings.keys()].some((a) => {
      if (bindings.get(a) !== "read") return false;
      return [...bindings.keys()].some(
        (b) => bindings.get(b) === "read_write" && overlap(buffers[a]!, buffers[b]!),
      );
    });
    if (!found) return false;
    const left = [...this.#codeOf(source, true).bindings.keys()];
    const clash = left.flatMap((a) =>
      left.filter((b) => a < b && overlap(buffers[a]!, buffers[b]!)).map((b) => [a, b]),
    )[0];
    if (clash === undefined) return true;
    const [a, b] = clash.map((index) => source.buffers[index]);
    throw new RangeError(`${source.name}: ${a} and ${b} must not overlap`);
  }

  #codeOf(source: KernelSource, inPlace: boolean): Code {
    const entry = source.webgpu;
    if (entry === undefined) throw new UserError(`${source.name} has no webgpu kernel yet.`);
    const key = this.#key(source, inPlace);
    const known = this.#code.get(key);
    if (known !== undefined) return known;
    const missing = entry.enables?.find((name) => !this.#enabled.has(name));
    if (missing !== undefined) throw new UserError(`${source.name} needs ${missing}, which is not there.`);
    const text = assemble(entry.code, {
      constants: { IN_PLACE: inPlace, ...entry.constants },
      enables: entry.enables ?? [],
      scalars: source.scalars,
      scalarBinding: source.buffers.length,
    });
    const code = { text, bindings: declaredBindings(text) };
    this.#code.set(key, code);
    return code;
  }

  #create(source: KernelSource, { text, bindings }: Code, written: ReadonlySet<number>): Pipeline {
    const accesses = new Map<number, Access>();
    for (const [index, access] of bindings) accesses.set(index, written.has(index) ? "read_write" : access);
    const entries: GPUBindGroupLayoutEntry[] = [...accesses].map(([binding, access]) => ({
      ...{ binding, visibility: COMPUTE },
      buffer: { type: access === "read" ? "read-only-storage" : "storage" },
    }));
    const scratch = scratchAccess(text);
    if (scratch !== null) {
      const type = scratch === "read" ? "read-only-storage" : "storage";
      entries.push({ binding: source.buffers.length + 1, visibility: COMPUTE, buffer: { type } });
    }
    const scalars = {
      binding: source.buffers.length,
      visibility: COMPUTE,
      buffer: { type: "uniform" },
    } as const;
    const layout = this.#device.createBindGroupLayout({
      label: source.name,
      entries: [...entries, scalars],
    });
    const module = this.#device.createShaderModule({
      label: source.webgpu!.code.name,
      code: declareWritten(text, written),
    });
    const gpu = this.#device.createComputePipeline({
      label: source.name,
      layout: this.#device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: source.webgpu!.entryPoint ?? "main" },
    });
    return { gpu, layout, bindings: accesses, usesScratch: scratch !== null };
  }
}

/**
 * Bindings that are only read but lie in a GPUBuffer of which the launch writes another part: WebGPU allows that only where
 * both are declared as written.
 */
function mixedBindings({ bindings }: Code, buffers: readonly WebGpuBuffer[]): Set<number> {
  const isWritten = (buffer: WebGpuBuffer) =>
    [...bindings].some(([index, access]) => access === "read_write" && buffers[index]!.gpu === buffer.gpu);
  return new Set(
    [...bindings].flatMap(([index, access]) =>
      access === "read" && isWritten(buffers[index]!) ? [index] : [],
    ),
  );
}
