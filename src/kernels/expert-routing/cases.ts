import { createRandom } from "../../base/random.ts";
import type { RouterConfig } from "../../formats/config-types.ts";
import type { CaseMemory } from "../common/cases/case-memory.ts";
import { compareRows } from "../common/cases/compare.ts";
import type { Finding, KernelCase, PreparedCase } from "../common/cases/kernel-case.ts";
import { expertRouting } from "./expert-routing.ts";
import { expertRoutingReference } from "./reference.ts";

interface RoutingShape {
  readonly model: string;
  readonly experts: number;
  readonly perToken: number;
  readonly rows: number;
  readonly router: RouterConfig;
}

const base: RouterConfig = {
  scoring: "softmax",
  selection: "greedy",
  groups: 1,
  groupsPerToken: 1,
  correctionBias: false,
  normalise: false,
  scale: 1,
};
const sigmoid = {
  scoring: "sigmoid",
  selection: "group-top2",
  correctionBias: true,
  normalise: true,
} as const;

const shapes: readonly RoutingShape[] = [
  { model: "deepseek_v2 lite", experts: 64, perToken: 6, rows: 33, router: base },
  {
    ...{ model: "deepseek_v2", experts: 160, perToken: 6, rows: 9 },
    router: { ...base, selection: "group-max", groups: 8, groupsPerToken: 3, scale: 16 },
  },
  {
    ...{ model: "deepseek_v3", experts: 256, perToken: 8, rows: 17 },
    router: { ...base, ...sigmoid, groups: 8, groupsPerToken: 4, scale: 2.5 },
  },
  {
    ...{ model: "glm4_moe_lite", experts: 64, perToken: 4, rows: 5 },
    router: { ...base, ...sigmoid, scale: 1.8 },
  },
  { model: "mistral4", experts: 128, perToken: 4, rows: 1, router: { ...base, normalise: true } },
  {
    ...{ model: "groups of one", experts: 4, perToken: 1, rows: 3 },
    router: { ...base, selection: "group-top2", groups: 4, groupsPerToken: 2 },
  },
];

function makeInputs({ experts, perToken, rows, router }: RoutingShape) {
  const random = createRandom(experts + perToken);
  const logits = random.normals(rows * experts, 2);
  const bias = router.correctionBias ? random.normals(experts, 0.3) : null;
  const expected = Array.from({ length: rows }, (_, row) => {
    const own = Array.from(logits.subarray(row * experts, (row + 1) * experts));
    return expertRoutingReference(router, perToken, own, bias && Array.from(bias));
  });
  return {
    ...{ logits, bias },
    ids: expected.flatMap(({ ids }) => ids),
    weights: expected.flatMap(({ weights }) => weights),
  };
}

async function run(memory: CaseMemory, shape: RoutingShape, { logits, bias }: ReturnType<typeof makeInputs>) {
  const { experts, perToken, rows, router } = shape;
  const maxRows = rows + 1;
  const args = {
    ...{ maxRows, experts, perToken, router },
    logits: memory.upload("logits", logits, maxRows * experts * 4),
    bias: bias && memory.upload("bias", bias),
    ids: memory.reserve("ids", maxRows * perToken * 4),
    weights: memory.reserve("weights", maxRows * perToken * 4),
    rowCount: memory.uploadCount("rowCount", rows),
  };
  await memory.run((launch) => expertRouting(launch, args));
  const chosen = new Int32Array(await memory.device.read(args.ids, 0, rows * perToken * 4));
  return { ids: Float32Array.from(chosen), weights: await memory.readFloats(args.weights) };
}

function prepare(shape: RoutingShape): PreparedCase {
  const made = makeInputs(shape);
  const common = { width: shape.perToken, liveRows: shape.rows };
  return {
    async check(memory): Promise<Finding[]> {
      const { ids, weights } = await run(memory, shape, made);
      const exact = { absolute: 0, relative: 0 };
      const close = { absolute: 2e-7 * shape.router.scale, relative: 1e-6 };
      return [
        compareRows({ ...common, output: "ids", actual: ids, expected: made.ids, tolerance: exact }),
        compareRows({
          ...common,
          ...{ output: "weights", actual: weights, expected: made.weights, tolerance: close },
        }),
      ];
    },
  };
}

/** Cases of expert-routing: the routers of the model types that have experts. */
export function expertRoutingCases(): KernelCase[] {
  return shapes.map((shape) => ({
    ...{ kernel: "expert-routing", group: "all routers", isQuick: true },
    shape: `${shape.model} experts=${shape.experts}/${shape.perToken} n=${shape.rows}`,
    prepare: () => prepare(shape),
  }));
}
