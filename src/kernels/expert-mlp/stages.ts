import type { KernelSource } from "../../device/device.ts";
import { combineWebGpu, planWebGpu } from "./expert-mlp.webgpu.ts";

/** Sorts the (token, choice) pairs by expert. */
export const planKernel: KernelSource = {
  name: "expert-mlp.plan",
  buffers: ["expertIds", "plan", "rowCount"],
  scalars: [
    ["experts", "i32"],
    ["perToken", "i32"],
  ],
  cpu: "expertMlpPlan",
  webgpu: planWebGpu,
};

/** silu(gate · x) · (up · x) of every pair. */
export const gateUpKernel: KernelSource = {
  name: "expert-mlp.gate-up",
  buffers: ["x", "gate", "up", "plan", "out"],
  scalars: [
    ["inputs", "i32"],
    ["outputs", "i32"],
    ["dtype", "i32"],
    ["experts", "i32"],
    ["perToken", "i32"],
    ["expertRows", "i32"],
  ],
  cpu: "expertMlpGateUp",
};

/** The down projection of every pair. */
export const downKernel: KernelSource = {
  name: "expert-mlp.down",
  buffers: ["x", "down", "plan", "out"],
  scalars: [
    ["inputs", "i32"],
    ["outputs", "i32"],
    ["dtype", "i32"],
    ["experts", "i32"],
  ],
  cpu: "expertMlpDown",
};

/** The weighted sum of a row's pairs. */
export const combineKernel: KernelSource = {
  name: "expert-mlp.combine",
  buffers: ["values", "expertIds", "expertWeights", "out", "rowCount"],
  scalars: [
    ["width", "i32"],
    ["perToken", "i32"],
    ["experts", "i32"],
    ["mode", "i32"],
    ["scale", "f32"],
  ],
  cpu: "expertMlpCombine",
  webgpu: combineWebGpu,
};
