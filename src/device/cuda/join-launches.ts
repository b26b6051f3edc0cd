import type { CudaJoin, KernelSource } from "../device.ts";
import type { CudaLaunch, LaunchPart, MemoryRange } from "./launch-arena.ts";
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
function mustWait({ reads, writes }: CudaJoin, later: LaunchPart, earlier: LaunchPart): boolean {
  return (
    touches(later, reads, earlier, writes) ||
    touches(later, writes, earlier, reads) ||
    touches(later, writes, earlier, writes)
  );
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

/**
 * Weights called into the second-level cache at the end of a joined launch: all that the launches up to the next joined one read, and this
 * much of its own. What comes in vain delays what is wanted first.
 */
const MOST_BETWEEN = 16e6;
const MOST_OF_NEXT = 0;

/** What launches before `next` may call into the second-level cache of its weights. */
function weightsOf(next: Work): MemoryRange[] {
  if (isMatmul(next)) return [];
  const { entry, parts } = next;
  const { addresses, bytes = [] } = parts?.[0] ?? next;
  const most = entry.joins === undefined ? MOST_BETWEEN : MOST_OF_NEXT;
  return (entry.weights ?? []).map((i) => {
    return { address: addresses[i] ?? 0n, bytes: Math.min(bytes[i] ?? 0, most) };
  });
}

/** Tells each joined launch what those up to the next joined one read. */
function lookAhead(launches: readonly Work[]): Work[] {
  return launches.map((work, index) => {
    if (isMatmul(work) || work.parts === undefined) return work;
    const ahead: MemoryRange[] = [];
    for (const next of launches.slice(index + 1, index + 5)) {
      const known = new Set(ahead.map(({ address }) => address));
      ahead.push(...weightsOf(next).filter(({ address, bytes }) => bytes > 0 && !known.has(address)));
      if (!isMatmul(next) && next.parts !== undefined) break;
    }
    return { ...work, ahead: ahead.slice(0, 2) };
  });
}

/** Launches of a program, those of one joining kernel that follow each other made one; see {@link CudaJoin}. */
export function joinLaunches(launches: readonly Work[]): Work[] {
  return lookAhead(joinNeighbours(launches));
}

function joinNeighbours(launches: readonly Work[]): Work[] {
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
