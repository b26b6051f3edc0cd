import { UserError } from "../../base/errors.ts";
import type { Device } from "../device.ts";

/** What stands in for the CUDA device in a browser. */
export const CudaDevice = {
  /** Rejects with a UserError: no page reaches the NVIDIA driver. */
  async open(): Promise<Device> {
    throw new UserError("CUDA needs Node and the NVIDIA driver; a browser reaches a GPU through WebGPU.");
  },
};
