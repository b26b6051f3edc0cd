import type { CudaEntry, DeviceBuffer, Launch } from "../../device/device.ts";
import { enqueueRounding } from "../common/projection.cuda.ts";
import type { ExpertMlpArguments } from "./expert-mlp.ts";
import { type ExpertParts, enqueueCombine, enqueuePlan, GROUPED_UNIT, source } from "./expert-units.cuda.ts";

/** WEIGHTS and the shared memory of expert-mlp.grouped.cu. */
const GROUPED_ROWS = 128;
const GROUPED_BYTES = 3 * (GROUPED_UNIT + GROUPED_ROWS) * (128 + 16);

const groupedEntry = (name: string): CudaEntry => ({
  ...{ module: "expert-mlp.grouped.fatbin", function: `expertMlpGrouped${name}`, blockSize: 256 },
  ...{ sharedBytes: GROUPED_BYTES, overlaps: true },
});

/** All of it on the tensor cores, x and what lies between the projections rounded to bf16. */
export function enqueueGrouped(
  launch: Launch,
  args: ExpertMlpArguments,
  parts: ExpertParts,
  rounded: DeviceBuffer,
): void {
  const { perToken, hidden, intermediate, down } = args;
  const { gate, up, plan, inner, values, expertRows } = parts;
  enqueueRounding(launch, { ...args, width: hidden, xStride: hidden, out: rounded });
  const most = enqueuePlan(launch, args, plan, GROUPED_UNIT);
  launch(
    source(
      "gate-up",
      ["x", "gate", "up", "plan", "out"],
      ["inputs", "outputs", "perToken", "expertRows", "most"],
      groupedEntry("GateUp"),
    ),
    most * Math.ceil(intermediate / (GROUPED_ROWS / 2)),
    [rounded, gate.buffer, up, plan, inner],
    [hidden, intermediate, perToken, expertRows, most],
  );
  launch(
    source("down", ["x", "down", "plan", "out"], ["inputs", "outputs", "most"], groupedEntry("Down")),
    most * Math.ceil(hidden / GROUPED_ROWS),
    [inner, down.buffer, plan, values],
    [intermediate, hidden, most],
  );
  enqueueCombine(launch, args, values);
}
