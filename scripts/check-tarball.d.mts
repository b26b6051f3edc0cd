/** Paths of the files that `npm pack` takes. */
export function packedFiles(): string[];
/** One compiled kernel for each CUDA source. */
export function wantedCubins(): string[];
/** What is wrong with a package of `files`, in sentences; its compiled CUDA kernels are asked for unless `withoutCuda`. */
export function problemsOf(files: readonly string[], options?: { withoutCuda?: boolean }): string[];
