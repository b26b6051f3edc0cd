export * from "./device.ts";
export * from "./open.ts";
