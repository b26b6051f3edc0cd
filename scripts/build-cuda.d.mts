/** The path under cubin/ that a source is compiled to. */
export function cubinOf(source: string): string;
/** The version of nvcc, or null where there is none. */
export function findNvcc(): string | null;
/** Functions with their bytes of spilled registers, from what `-Xptxas -v` prints. */
export function spillsOf(report: string): { name: string; bytes: number }[];
/** Compiles those of `sources` that changed; throws where one fails, and for spills of tuned kernels. */
export function buildCuda(root: string, sources: readonly string[], say: (line: string) => void): void;
