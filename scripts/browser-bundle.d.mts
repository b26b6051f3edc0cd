/** Bytes that everything `flashmla` exports may take, kernels included. */
export const limitBytes: number;
/** The parts of the package that make sense in a browser. */
export const browserEntries: readonly string[];
/** Bundles `entry`: its chunks' names and bytes. Throws when it needs Node or does not bundle. */
export function bundleForBrowser(
  entry: string,
  bundler: "esbuild" | "vite",
): Promise<{ readonly bytes: number; readonly chunks: readonly { name: string; bytes: number }[] }>;
