import { describe, expect, it } from "vitest";
import { deviceFlag, devicesFlag, idsFlag, integerFlag, nameFlag, numberFlag, partFlag } from "./flags.ts";
import { formatBytes, formatTable } from "./output.ts";

describe("flags", () => {
  it.each(["", "x", "1.5", "0", "65", "1e3", "NaN", " "])("integer 1…64 refuses %j", (text) => {
    expect(() => integerFlag(1, 64)(text)).toThrow(/from 1 to 64/);
  });

  it("integer and number accept their range, ends included", () => {
    expect([integerFlag(1, 64)("1"), integerFlag(1, 64)("64"), numberFlag(0, 2)("0.7")]).toEqual([
      1, 64, 0.7,
    ]);
    expect(() => numberFlag(0, 2)("2.01")).toThrow(/from 0 to 2/);
    expect(() => numberFlag(0)("Infinity")).toThrow(/at least 0/);
  });

  it("devices: a kind, or a GPU by its index", () => {
    expect([deviceFlag("webgpu"), deviceFlag("cuda:2")]).toEqual(["webgpu", "cuda:2"]);
    expect(devicesFlag("cpu, cuda:1,cpu")).toEqual(["cpu", "cuda:1"]);
    for (const text of ["", "gpu", "cuda:", "cuda:x"]) expect(() => deviceFlag(text)).toThrow(/cuda:1 for/);
  });

  it("names of files hold nothing that leads elsewhere", () => {
    expect(nameFlag("kernels-2.b1")).toBe("kernels-2.b1");
    for (const text of ["", "../x", "a/b", ".hidden", "a b"]) expect(() => nameFlag(text)).toThrow(/letters/);
  });

  it("parts: from 1/n to n/n", () => {
    expect(partFlag("3/16")).toEqual({ index: 3, of: 16 });
    for (const text of ["0/3", "4/3", "1", "1/", "-1/3", "a/b"])
      expect(() => partFlag(text)).toThrow(/3\/16/);
  });

  it("ids: separated by commas, nothing else", () => {
    expect(idsFlag("1,2, 3")).toEqual([1, 2, 3]);
    for (const text of ["", "1,,2", "-1", "1;2", "1.5"]) expect(() => idsFlag(text)).toThrow(/token ids/);
  });
});

describe("output", () => {
  it("bytes by powers of 1024", () => {
    expect([0, 1023, 1536, 20 * 2 ** 20, 4 * 2 ** 30].map(formatBytes)).toEqual([
      "0 B",
      "1023 B",
      "1.5 KiB",
      "20 MiB",
      "4.0 GiB",
    ]);
  });

  it("tables align their columns", () => {
    expect(
      formatTable([
        ["a", "b"],
        ["long", "x"],
      ]),
    ).toBe("a     b\nlong  x");
  });
});
