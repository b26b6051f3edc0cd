import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testDevices } from "../../../tests/fixtures/devices.ts";
import { createRandom } from "../../base/random.ts";
import type { Device } from "../../device/device.ts";
import type { RouterConfig } from "../../formats/config-types.ts";
import { expertRouting } from "./expert-routing.ts";
import { expertRoutingReference } from "./reference.ts";

const base: RouterConfig = {
  scoring: "softmax",
  selection: "greedy",
  groups: 1,
  groupsPerToken: 1,
  correctionBias: false,
  normalise: false,
  scale: 1,
};

const routers: [string, number, number, number, Partial<RouterConfig>][] = [
  ["deepseek_v2 lite", 64, 6, 33, {}],
  ["deepseek_v2", 160, 6, 9, { selection: "group-max", groups: 8, groupsPerToken: 3, scale: 16 }],
  [
    "deepseek_v3",
    256,
    8,
    17,
    {
      scoring: "sigmoid",
      selection: "group-top2",
      groups: 8,
      groupsPerToken: 4,
      correctionBias: true,
      normalise: true,
      scale: 2.5,
    },
  ],
  [
    "glm4_moe_lite",
    64,
    4,
    5,
    { scoring: "sigmoid", selection: "group-top2", correctionBias: true, normalise: true, scale: 1.8 },
  ],
  ["mistral4", 128, 4, 1, { normalise: true }],
  ["groups of one", 4, 1, 3, { selection: "group-top2", groups: 4, groupsPerToken: 2 }],
];

describe.each(testDevices)("expert-routing, $name", ({ open }) => {
  let device: Device;
  beforeAll(async () => {
    device = await open();
  });
  afterAll(() => device.close());

  async function route(
    router: RouterConfig,
    perToken: number,
    logits: Float32Array,
    bias: Float32Array | null,
    experts: number,
  ) {
    const rows = logits.length / experts;
    const maxRows = rows + 1;
    const buffers = {
      logits: device.allocate(maxRows * experts * 4, "logits"),
      bias: bias && device.allocate(experts * 4, "bias"),
      ids: device.allocate(maxRows * perToken * 4, "ids"),
      weights: device.allocate(maxRows * perToken * 4, "weights"),
      rowCount: device.allocate(4, "rowCount"),
    };
    device.write(buffers.logits, logits);
    if (buffers.bias && bias) device.write(buffers.bias, bias);
    device.write(buffers.rowCount, new Int32Array([rows]));
    const program = device.record((launch) =>
      expertRouting(launch, { ...buffers, maxRows, experts, perToken, router }),
    );
    program.run();
    const ids = new Int32Array(await device.read(buffers.ids, 0, maxRows * perToken * 4));
    const weights = new Float32Array(await device.read(buffers.weights, 0, maxRows * perToken * 4));
    program.free();
    expect(ids.subarray(rows * perToken).every((id) => id === -1)).toBe(true);
    return { ids, weights };
  }

  it.each(routers)(
    "%s: experts=%i perToken=%i rows=%i as float64",
    async (_, experts, perToken, rows, change) => {
      const router = { ...base, ...change };
      const random = createRandom(experts + perToken);
      const logits = Float32Array.from({ length: rows * experts }, () => 2 * random.normal());
      const bias = router.correctionBias
        ? Float32Array.from({ length: experts }, () => 0.3 * random.normal())
        : null;
      const { ids, weights } = await route(router, perToken, logits, bias, experts);
      for (let row = 0; row < rows; row++) {
        const own = Array.from(logits.subarray(row * experts, (row + 1) * experts));
        const expected = expertRoutingReference(router, perToken, own, bias && Array.from(bias));
        expect([...ids.subarray(row * perToken, (row + 1) * perToken)]).toEqual(expected.ids);
        expected.weights.forEach((weight, i) => {
          expect(Math.abs(weights[row * perToken + i]! - weight)).toBeLessThan(2e-7 * router.scale);
        });
      }
    },
  );

  it("experts=8: equal scores go to the lower id, far logits do not overflow", async () => {
    const flat = await route(base, 3, new Float32Array(8), null, 8);
    expect([...flat.ids.subarray(0, 3)]).toEqual([0, 1, 2]);
    const far = Float32Array.of(-3e38, 0, 3e38, -1000, 1000, 0, 0, 0);
    const soft = await route(base, 2, far, null, 8);
    expect([...soft.ids.subarray(0, 2)]).toEqual([2, 0]);
    expect(soft.weights[0]).toBe(1);
    const sigmoid = await route({ ...base, scoring: "sigmoid", normalise: true }, 2, far, null, 8);
    expect([...sigmoid.weights.subarray(0, 2)]).toEqual([0.5, 0.5]);
  });

  it("counts that do not fit are refused by name", async () => {
    const grouped = { ...base, selection: "group-max", groups: 4, groupsPerToken: 1 } as const;
    await expect(route(grouped, 3, new Float32Array(8), null, 8)).rejects.toThrow("perToken");
    await expect(route({ ...base, groups: 3 }, 1, new Float32Array(8), null, 8)).rejects.toThrow("experts");
    await expect(route({ ...base, correctionBias: true }, 1, new Float32Array(8), null, 8)).rejects.toThrow(
      "bias",
    );
  });
});
