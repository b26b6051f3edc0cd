import { checkFinite, checkInteger, checkOneOf } from "../../base/checks.ts";
import type { DeviceBuffer, KernelSource, Launch } from "../../device/device.ts";
import type { RouterConfig } from "../../formats/config-types.ts";
import { enqueueChainRouting, routesInChain } from "../common/product-chain.cuda.ts";
import type { WeightMatrix } from "../common/weight.ts";
import { expertRoutingWebGpu } from "./expert-routing.webgpu.ts";

/** One record per launch of `expertRouting`. */
export interface ExpertRoutingArguments {
  /** f32 [maxRows, experts]. */
  readonly logits: DeviceBuffer;
  /** f32 [experts]: takes part in choosing, not in weighing; null where the router has none. */
  readonly bias: DeviceBuffer | null;
  /** i32 [maxRows, perToken], best first. */
  readonly ids: DeviceBuffer;
  /** f32 [maxRows, perToken]. */
  readonly weights: DeviceBuffer;
  /** i32 [1]: rows in use; later rows are neither read nor written. */
  readonly rowCount: DeviceBuffer;
  readonly maxRows: number;
  /** At most 4096. */
  readonly experts: number;
  readonly perToken: number;
  readonly router: RouterConfig;
  /** The router's matrix, where its product is the launch before: on CUDA both can then be parts of one. */
  readonly routerWeight?: WeightMatrix;
}

const kernel: KernelSource = {
  name: "expert-routing",
  buffers: ["logits", "bias", "ids", "weights", "rowCount"],
  scalars: [
    ["experts", "i32"],
    ["perToken", "i32"],
    ["scoring", "i32"],
    ["selection", "i32"],
    ["groups", "i32"],
    ["groupsPerToken", "i32"],
    ["normalise", "i32"],
    ["scale", "f32"],
    ["hasBias", "i32"],
  ],
  cpu: "expertRouting",
};

const scorings = ["softmax", "sigmoid"] as const;
const selections = ["greedy", "group-max", "group-top2"] as const;

/**
 * The experts of each row and the weights of their outputs: scores = softmax or sigmoid of the logits, in float64; the
 * best `perToken` of scores + bias, within the best groups where the router has them; equal ones by id. Throws
 * RangeError where the counts do not fit each other.
 */
export function expertRouting(launch: Launch, args: ExpertRoutingArguments): void {
  const { experts, perToken, router } = args;
  checkCounts(args);
  if (args.routerWeight !== undefined && routesInChain(launch, args.routerWeight, args.maxRows)) {
    const { scoring, selection, groups, groupsPerToken, scale } = router;
    const codes = { scoring: scorings.indexOf(scoring), selection: selections.indexOf(selection) };
    const rest = { groups, groupsPerToken, normalise: router.normalise ? 1 : 0, scale };
    const hasBias = args.bias === null ? 0 : 1;
    enqueueChainRouting(launch, { ...args, router: { experts, perToken, ...codes, ...rest, hasBias } });
    return;
  }
  const scalars = [
    experts,
    perToken,
    scorings.indexOf(checkOneOf("router.scoring", router.scoring, scorings)),
    selections.indexOf(checkOneOf("router.selection", router.selection, selections)),
    router.groups,
    router.groupsPerToken,
    router.normalise ? 1 : 0,
    checkFinite("router.scale", router.scale),
    args.bias === null ? 0 : 1,
  ];
  const buffers = [args.logits, args.bias ?? args.logits, args.ids, args.weights, args.rowCount];
  const cuda = {
    ...{ module: "expert-routing.fatbin", function: "expertRouting", blockSize: 32, overlaps: true },
    sharedBytes: 8 * (2 * experts + router.groups),
  };
  const webgpu = launch.target.kind === "webgpu" ? expertRoutingWebGpu(args) : undefined;
  launch({ ...kernel, cuda, ...(webgpu && { webgpu }) }, args.maxRows, buffers, scalars);
}

function checkCounts({ maxRows, experts, perToken, router, bias }: ExpertRoutingArguments): void {
  checkInteger("maxRows", maxRows, { min: 1 });
  checkInteger("experts", experts, { min: 1, max: 4096 });
  checkInteger("router.groups", router.groups, { min: 1, max: experts });
  checkInteger("router.groupsPerToken", router.groupsPerToken, { min: 1, max: router.groups });
  if (experts % router.groups !== 0) {
    throw new RangeError(`experts: expected a multiple of ${router.groups} groups, got ${experts}`);
  }
  const grouped = router.selection !== "greedy";
  const choices = grouped ? (experts / router.groups) * router.groupsPerToken : experts;
  checkInteger("perToken", perToken, { min: 1, max: choices });
  if (router.correctionBias !== (bias !== null)) {
    throw new RangeError(`bias: expected ${router.correctionBias ? "a buffer" : "null"}, as the router says`);
  }
}

/** FLOPs and bytes of one call over `rows` rows. */
export function expertRoutingCost(
  rows: number,
  experts: number,
  perToken: number,
): { flops: number; bytes: number } {
  return { flops: rows * experts * (40 + perToken), bytes: rows * (experts + 2 * perToken) * 4 };
}
