import type { CudaJoin, KernelSource } from "../device.ts";
import type { CudaLaunch, LaunchPart } from "./launch-arena.ts";
import { isMatmul, type Work } from "./work.ts";

function overlap(a: LaunchPart, i: number, b: LaunchPart, j: number): boolean {
  const [first = 0n, second = 0n] = [a.addresses[i], b.addresses[j]];
  return first < second + BigInt(b.bytes[j] ?? 0) && second < first + BigInt(a.bytes[i] ?? 0);
}

/** Whether any of the buffers `of` of a part shares memory with one of the buffers `with` of another. */
function touches(a: LaunchPart, of: readonly number[], b: LaunchPart, others: readonly number[]): boolean {
  return of.some((i) => others.some((j) => overlap(a, i, b, j)));
}

/** Whether `later` may not begin before all blocks have ended `earlier`. */
function mustWait({ reads, writes, shares }: CudaJoin, later: LaunchPart, earlier: LaunchPart): boolean {
  if (touches(later, reads, earlier, writes) || touches(later, writes, earlier, reads)) return true;
  const isShared = shares.every((i) => later.scalars[i] === earlier.scalars[i]);
  const isSame = (i: number, j: number) => isShared && later.addresses[i] === earlier.addresses[j];
  return writes.some((i) => writes.some((j) => overlap(later, i, earlier, j) && !isSame(i, j)));
}

function joinedSource(source: KernelSource, parts: readonly LaunchPart[]): KernelSource {
  return parts.length === 1 ? source : { ...source, name: parts.map((part) => part.source.name).join(" + ") };
}

/** Adds `next` to the parts of `launch`. */
function joined(launch: CudaLaunch, next: CudaLaunch, join: CudaJoin): CudaLaunch {
  const parts = launch.parts ?? [];
  const added = (next.parts ?? []).map((part) => {
    const waitsFor = parts.reduce((last, earlier, i) => (mustWait(join, part, earlier) ? i : last), -1);
    return { ...part, waitsFor };
  });
  const all = [...parts, ...added];
  const sharedBytes = Math.max(launch.entry.sharedBytes ?? 0, next.entry.sharedBytes ?? 0);
  const entry = { ...launch.entry, sharedBytes };
  return { ...launch, source: joinedSource(launch.source, all), entry, parts: all };
}

/** Launches of a program, those of one joining kernel that follow each other made one; see {@link CudaJoin}. */
export function joinLaunches(launches: readonly Work[]): Work[] {
  const result: Work[] = [];
  for (const work of launches) {
    const last = result.at(-1);
    const join = isMatmul(work) ? undefined : work.entry.joins;
    if (join === undefined || isMatmul(work) || last === undefined || isMatmul(last)) {
      result.push(work);
      continue;
    }
    const fits = last.function === work.function && last.grid === work.grid;
    const count = last.parts?.length ?? join.most;
    if (fits && count < join.most) result[result.length - 1] = joined(last, work, join);
    else result.push(work);
  }
  return result;
}
