export { UserError } from "./base/errors.ts";
export type { Device, DeviceBuffer, DeviceKind, Launch, Program } from "./device/device.ts";
export { openDevice } from "./device/open.ts";
export { rmsNorm } from "./kernels/rms-norm/rms-norm.ts";
