/** Processors this process may use; 1 where the runtime has no way to say. */
export async function processorCount(): Promise<number> {
  if (typeof process === "undefined" || !process.versions?.node) return 1;
  const { availableParallelism } = await import("node:os");
  return availableParallelism();
}
