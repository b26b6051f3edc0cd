import { describe, expect, it } from "vitest";
import type { CudaEntry, KernelSource } from "../device.ts";
import { joinLaunches } from "./join-launches.ts";
import type { CudaLaunch } from "./launch-arena.ts";
import type { Work } from "./work.ts";

const entry: CudaEntry = {
  ...{ module: "chain.cubin", function: "chain", blockSize: 32 },
  joins: { most: 4, reads: [0], writes: [1], shares: [0] },
};

/** A part that reads 256 bytes at `x` and writes `outputs` floats at `out`. */
function part(name: string, x: number, out: number, outputs = 64, kernel = 1n): CudaLaunch {
  const source: KernelSource = { name, buffers: ["x", "out"], scalars: [["outputs", "i32"]], cuda: entry };
  const addresses = [BigInt(x), BigInt(out)];
  const scalars = [outputs];
  return {
    ...{ source, entry, function: kernel, grid: 8, addresses, scalars, overlaps: true },
    parts: [{ source, addresses, bytes: [256, 4 * outputs], scalars, waitsFor: -1 }],
  };
}

function waits(works: readonly Work[]): (readonly number[])[] {
  return joinLaunches(works).map((work) => ("parts" in work ? work.parts!.map((one) => one.waitsFor) : []));
}

describe("joinLaunches", () => {
  it("a part waits for the last one whose results it reads", () => {
    expect(waits([part("a", 0, 1000), part("b", 0, 2000), part("c", 1000, 3000)])).toEqual([[-1, -1, 0]]);
  });

  it("a part waits before it writes what another one reads", () => {
    expect(waits([part("a", 1000, 2000), part("b", 3000, 1100)])).toEqual([[-1, 0]]);
  });

  it("parts that write one buffer wait unless the same blocks write the same places", () => {
    expect(waits([part("a", 0, 1000), part("b", 0, 1000)])).toEqual([[-1, -1]]);
    expect(waits([part("a", 0, 1000), part("b", 0, 1000, 32)])).toEqual([[-1, 0]]);
    expect(waits([part("a", 0, 1000), part("b", 0, 1128)])).toEqual([[-1, 0]]);
    expect(waits([part("a", 0, 1000), part("b", 0, 1256)])).toEqual([[-1, -1]]);
  });

  it("others in between, other kernels and a full launch part them; names tell what was joined", () => {
    const { joins: _, ...single } = entry;
    const { parts: __, ...plain } = { ...part("x", 0, 1000), entry: single };
    const names = (works: readonly Work[]) => joinLaunches(works).map(({ source }) => source.name);
    const [a, b] = [part("a", 0, 1000), part("b", 0, 2000)];
    expect(names([a, plain, b])).toEqual(["a", "x", "b"]);
    expect(names([a, part("c", 0, 2000, 64, 2n)])).toEqual(["a", "c"]);
    expect(names([a, b, a, b, a])).toEqual(["a + b + a + b", "a"]);
  });
});
