import * as z from "zod";
import { UserError } from "../base/errors.ts";

const source = z.object({ url: z.string().min(1), title: z.string().min(1), date: z.iso.date() });
const gpuFields = z.object({
  id: z.string().min(1),
  name: z.string().min(1),
  memoryGB: z.number().positive(),
  bandwidthGBs: z.number().positive(),
  bf16Tflops: z.number().positive(),
  fp8Tflops: z.number().positive().nullable(),
  linkGBs: z.number().positive(),
  specSource: source,
  pricePerHour: z.number().positive().nullable(),
  priceSource: source.nullable(),
});
const fileFields = z.object({ gpus: z.array(gpuFields).min(1) });

/** Where a number was published, and when it was read. */
export type Source = z.infer<typeof source>;

/**
 * One GPU type in decimal units: memory in GB, bandwidth and one-way link in GB/s, dense peaks in TFLOPS, the hourly price of
 * one in dollars (null where no source was found).
 */
export type Gpu = z.infer<typeof gpuFields>;

/**
 * The GPUs of a data file's parsed JSON, such as the data/gpus.json that ships with the package (`flashmla/data/gpus.json`).
 * `name` is what the file is called in a message. Throws UserError when a field is missing or absurd, naming it.
 */
export function parseGpus(json: unknown, name: string): readonly Gpu[] {
  const parsed = fileFields.safeParse(json);
  if (parsed.success) return parsed.data.gpus;
  const issue = parsed.error.issues[0];
  throw new UserError(
    `The GPU file ${name} has a wrong field ${issue?.path.join(".") || "at its top"}: ${issue?.message}; see data/gpus.json.`,
  );
}

/** The GPU called `id`. Throws UserError, naming those that are known, when there is none. */
export function findGpu(gpus: readonly Gpu[], id: string): Gpu {
  const found = gpus.find((gpu) => gpu.id === id.toLowerCase());
  if (found !== undefined) return found;
  const known = gpus.map((gpu) => gpu.id).join(", ");
  throw new UserError(`There is no data on the GPU ${JSON.stringify(id)}; choose one of ${known}.`);
}
