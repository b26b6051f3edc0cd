import { afterEach, describe, expect, it, vi } from "vitest";
import { UserError } from "../base/errors.ts";
import { chooseDevice, type DeviceCandidate } from "./choose-device.ts";
import type { Device, DeviceKind } from "./device.ts";
import { openDevice } from "./open.ts";
import { nodeHost, type ProbeEnd, whyNotWebGpu } from "./webgpu/probe.ts";

/** A device that only knows its kind and whether it was closed. */
function fakeDevice(kind: DeviceKind) {
  const close = vi.fn(async () => {});
  return { kind, close, device: { kind, name: kind, close } as unknown as Device };
}

const opens = (kind: DeviceKind) => {
  const fake = fakeDevice(kind);
  return { ...fake, candidate: { kind, open: async () => fake.device } satisfies DeviceCandidate };
};
const fails = (kind: DeviceKind, reason: string): DeviceCandidate => ({
  kind,
  open: async () => {
    throw new UserError(reason);
  },
});

describe("the choice of a device", () => {
  it("is the first that opens, and says why others were passed over", async () => {
    const [gpu, cpu] = [opens("webgpu"), opens("cpu")];
    const onPassedOver = vi.fn();
    const candidates = [fails("cuda", "no driver"), gpu.candidate, cpu.candidate];
    expect(await chooseDevice(candidates, { onPassedOver })).toBe(gpu.device);
    expect(onPassedOver.mock.calls).toEqual([["cuda", "no driver"]]);
    expect(gpu.close).not.toHaveBeenCalled();
  });

  it("closes one that will not do and goes on", async () => {
    const [cuda, cpu] = [opens("cuda"), opens("cpu")];
    const onPassedOver = vi.fn();
    const whyNot = async ({ kind }: Device) => (kind === "cuda" ? "The model needs 9 GiB." : null);
    expect(await chooseDevice([cuda.candidate, cpu.candidate], { whyNot, onPassedOver })).toBe(cpu.device);
    expect(cuda.close).toHaveBeenCalledOnce();
    expect(onPassedOver.mock.calls).toEqual([["cuda", "The model needs 9 GiB."]]);
  });

  it("fails with what is said against those that opened, where none will do", async () => {
    const [gpu, cpu] = [opens("webgpu"), opens("cpu")];
    const whyNot = async ({ kind }: Device) => `Too large for ${kind}.`;
    const candidates = [fails("cuda", "no driver"), gpu.candidate, cpu.candidate];
    await expect(chooseDevice(candidates, { whyNot })).rejects.toThrow(
      /^Too large for webgpu. Too large for cpu.$/,
    );
    expect([gpu.close, cpu.close].map(({ mock }) => mock.calls.length)).toEqual([1, 1]);
  });

  it("fails with all reasons where none opens, and with the one failure where there was no choice", async () => {
    const none = [fails("cuda", "no driver."), fails("cpu", "no threads.")];
    await expect(chooseDevice(none)).rejects.toThrow("cuda: no driver. cpu: no threads.");
    const failure = new TypeError("broken");
    const broken = { kind: "cpu", open: () => Promise.reject(failure) } as const;
    await expect(chooseDevice([broken])).rejects.toBe(failure);
  });

  it("closes the device where the check of it fails by a fault", async () => {
    const cpu = opens("cpu");
    const whyNot = () => Promise.reject(new TypeError("a fault"));
    await expect(chooseDevice([cpu.candidate], { whyNot })).rejects.toThrow("a fault");
    expect(cpu.close).toHaveBeenCalledOnce();
  });
});

describe("the environment", () => {
  afterEach(() => vi.unstubAllEnvs());

  it("FLASHMLA_DEVICE forces a device, and `kind` goes before it", async () => {
    vi.stubEnv("FLASHMLA_DEVICE", "cpu");
    const device = await openDevice({ threads: 1 });
    expect(device.kind).toBe("cpu");
    await device.close();
    vi.stubEnv("FLASHMLA_DEVICE", "tpu");
    await expect(openDevice()).rejects.toThrow("tpu");
    const other = await openDevice({ kind: "cpu", threads: 1 });
    await other.close();
  });
});

const info = (description: string, isFallbackAdapter = false) =>
  ({ vendor: "", architecture: "", device: "", description, isFallbackAdapter }) as GPUAdapterInfo;

describe("whether WebGPU is tried unasked in Node", () => {
  const answer = (found: GPUAdapterInfo | null) => JSON.stringify(found && { info: found });
  function host(end: Partial<ProbeEnd> | null, obstacle: string | null = null) {
    const run = vi.fn(() => end && { status: 0, signal: null, output: "", ...end });
    return { obstacle: () => obstacle, run };
  }
  const finds = (found: GPUAdapterInfo | null) => whyNotWebGpu(host({ output: `${answer(found)}\n` }));

  it("yes where another process finds a GPU, also behind lines that a driver prints", () => {
    expect(finds(info("NVIDIA H100"))).toBeNull();
    const output = `Warning: old driver\n${answer(info("AMD Radeon"))}`;
    expect(whyNotWebGpu(host({ output }))).toBeNull();
  });

  it("no, and no process is started, where the system shows no GPU", () => {
    const bare = host({}, "there is no GPU here");
    expect(whyNotWebGpu(bare)).toBe("there is no GPU here");
    expect(bare.run).not.toHaveBeenCalled();
  });

  it("no where Dawn is missing, crashes, hangs, finds nothing or a processor", () => {
    expect(whyNotWebGpu(host({ status: 1 }))).toContain("does not load");
    expect(whyNotWebGpu(host({ status: null, signal: "SIGSEGV" }))).toContain("ended by SIGSEGV");
    expect(whyNotWebGpu(host({ status: null, signal: "SIGTERM" }))).toContain("ended by SIGTERM");
    expect(finds(null)).toContain("no adapter");
    for (const name of ["llvmpipe: Mesa 25", "SwiftShader Device", "Microsoft Basic Render Driver", "WARP"]) {
      expect(finds(info(name))).toContain(name);
    }
    expect(finds(info("some", true))).toContain("on the processor");
    expect(() => whyNotWebGpu(host({ output: "no JSON" }))).toThrow("gave no answer");
  });

  it("left to this process where it is a program that has Node inside", () => {
    expect(whyNotWebGpu(host(null))).toBeNull();
  });

  it("asks a real process on this machine", () => {
    const answered = whyNotWebGpu({ ...nodeHost(), obstacle: () => null });
    expect(answered ?? "").toMatch(/^$|processor|adapter|load|ended/);
  });
});
