import { existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { UserError } from "../../base/errors.ts";
import type { NativeLibrary } from "./library.ts";

/** Newest first: version 13 belongs to CUDA 13, 12 to CUDA 12. */
const names =
  typeof process !== "undefined" && process.platform === "win32"
    ? ["cublasLt64_13.dll", "cublasLt64_12.dll"]
    : ["libcublasLt.so.13", "libcublasLt.so.12"];

/** Folders of `folder` whose names match; none where it cannot be read. */
function childrenOf(folder: string, pattern: RegExp): string[] {
  try {
    const matching = readdirSync(folder).filter((name) => pattern.test(name));
    return matching.sort().map((name) => join(folder, name));
  } catch {
    return [];
  }
}

/** Where NVIDIA's Python packages put their libraries: …/site-packages/nvidia/<part>/lib. */
function pythonFolders(environment: NodeJS.ProcessEnv): string[] {
  const roots = [
    environment.VIRTUAL_ENV,
    environment.CONDA_PREFIX,
    join(homedir(), ".local"),
    "/usr/local",
    "/usr",
  ];
  return roots
    .flatMap((root) => (root ? childrenOf(join(root, "lib"), /^python3/) : []))
    .flatMap((python) => [join(python, "site-packages"), join(python, "dist-packages")])
    .flatMap((packages) => childrenOf(join(packages, "nvidia"), /./))
    .map((part) => join(part, "lib"));
}

/** Folders that cuBLASLt is looked for in when the loader does not know it, the likeliest first. */
export function cublasFolders(environment: NodeJS.ProcessEnv): string[] {
  const homes = [environment.CUDA_HOME, environment.CUDA_PATH, "/usr/local/cuda", "/opt/cuda"];
  const toolkits = [...homes, ...childrenOf("/usr/local", /^cuda-1[23]/).reverse()];
  return [
    ...toolkits.flatMap((home) => (home ? [join(home, "lib64"), join(home, "lib"), join(home, "bin")] : [])),
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    ...pythonFolders(environment),
  ];
}

/**
 * Opens cuBLASLt: the file that `FLASHMLA_CUBLASLT` names, else what the loader finds, else what lies in the usual places.
 * `driver` is a library that was opened before. Throws UserError that says what was looked for.
 */
export function openCublasLibrary(
  driver: Pick<NativeLibrary, "open">,
  environment: NodeJS.ProcessEnv = process.env,
): NativeLibrary {
  const named = environment.FLASHMLA_CUBLASLT;
  const known = cublasFolders(environment).flatMap((folder) => names.map((name) => join(folder, name)));
  const candidates = named ? [named] : [...names, ...known.filter((file) => existsSync(file))];
  for (const file of candidates) {
    try {
      return driver.open(file);
    } catch {
      // The next one may be there.
    }
  }
  throw new UserError(
    named
      ? `FLASHMLA_CUBLASLT names ${named}, which cannot be opened as a library.`
      : `There is no cuBLASLt (${names.join(" or ")}) here; install NVIDIA's cuBLAS, or set FLASHMLA_CUBLASLT to its file.`,
  );
}
