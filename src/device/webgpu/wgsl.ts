import type { ScalarKind, WgslSource } from "../device.ts";
import { textOf } from "./wgsl-texts.ts";

/** What a piece of code is specialised by. */
export interface Specialisation {
  readonly constants: Readonly<Record<string, number | boolean>>;
  readonly enables: readonly string[];
  readonly scalars: readonly (readonly [name: string, kind: ScalarKind])[];
  /** Binding of the uniform with the scalars. */
  readonly scalarBinding: number;
}

const SUBGROUP_MATRIX = "chromium_experimental_subgroup_matrix";

/** How a storage buffer is declared. */
export type Access = "read" | "read_write";

/** A condition of an `#if` line: `NAME`, `!NAME`, `NAME == 2` or `NAME != OTHER`; a number may stand for a name. */
const condition = /^(!?)\s*(\w+)\s*(?:(==|!=)\s*(-?\w+))?$/;

function holds(text: string, source: WgslSource, constants: Specialisation["constants"]): boolean {
  const [, negated, name = "", operator, other = ""] = text.match(condition) ?? [];
  const numberOf = (word: string) => Number(constants[word] ?? (word || Number.NaN));
  const value = numberOf(name);
  if (Number.isNaN(value)) throw new Error(`${source.name}: #if ${text}: no constant of that name`);
  const found = operator === undefined ? value !== 0 : value === numberOf(other);
  return found !== (negated === "!" || operator === "!=");
}

/** How often a `#for` repeats: a number, a constant, or a constant divided by a number. */
function countOf(text: string, source: WgslSource, constants: Specialisation["constants"]): number {
  const [name = "", divisor = "1"] = text.split("/").map((part) => part.trim());
  const count = Number(constants[name] ?? name) / Number(divisor);
  if (Number.isInteger(count)) return count;
  throw new Error(`${source.name}: #for … ${text}: not a whole number`);
}

/**
 * `lines` with what lies between `#for i COUNT` and `#endfor` repeated, the number in place of `$i` and the next one of `$i+1`: the variables of such loops are
 * variables of their own, where compilers keep arrays of matrices in memory.
 */
function repeatLines(lines: string[], source: WgslSource, constants: Specialisation["constants"]): string[] {
  const repeated: string[] = [];
  for (let at = 0; at < lines.length; at++) {
    const [, name, text = ""] = lines[at]!.match(/^#for\s+(\w+)\s+(.+)$/) ?? [];
    if (name === undefined) {
      repeated.push(lines[at]!);
      continue;
    }
    const first = at + 1;
    for (let depth = 1; depth > 0; ) {
      const line = lines[++at];
      if (line === undefined) throw new Error(`${source.name}: #for ${name} without #endfor`);
      if (/^#for\b/.test(line)) depth++;
      if (/^#endfor\b/.test(line)) depth--;
    }
    const body = lines.slice(first, at);
    for (let i = 0; i < countOf(text, source, constants); i++) {
      const numbered = body.map((line) =>
        line.replaceAll(`$${name}+1`, String(i + 1)).replaceAll(`$${name}`, String(i)),
      );
      repeated.push(...repeatLines(numbered, source, constants));
    }
  }
  return repeated;
}

/** The lines of `source` with its `#for` loops laid out, of those whose `#if` conditions hold. */
function selectLines(source: WgslSource, constants: Specialisation["constants"]): string[] {
  const lines: string[] = [];
  const open: boolean[] = [];
  for (const line of repeatLines(textOf(source).split("\n"), source, constants)) {
    const [, directive, rest = ""] = line.match(/^#(if|else|endif)\b\s*(.*)$/) ?? [];
    if (directive === "if") open.push(holds(rest.trim(), source, constants));
    else if (directive === "else") open.push(!open.pop());
    else if (directive === "endif") open.pop();
    else if (open.every(Boolean)) lines.push(line);
  }
  if (open.length > 0) throw new Error(`${source.name}: #if without #endif`);
  return lines;
}

/** `source` and all it includes, each once, what is included first. */
function flatten(source: WgslSource, found: Set<WgslSource> = new Set()): Set<WgslSource> {
  for (const one of source.includes) flatten(one, found);
  return found.add(source);
}

/** The code of one specialisation: extensions, constants, scalars, then the files. */
export function assemble(source: WgslSource, specialisation: Specialisation): string {
  const { constants, enables, scalars, scalarBinding } = specialisation;
  const fields = [...scalars.map(([name, kind]) => `${name}: ${kind}`), "grid: u32", "gridWidth: u32"];
  const files = [...flatten(source)];
  return [
    ...enables.map((name) => `enable ${name};`),
    // What depends on a subgroup's number is uniform in that subgroup, which WGSL cannot see.
    ...(enables.includes(SUBGROUP_MATRIX) ? ["diagnostic(off, chromium.subgroup_matrix_uniformity);"] : []),
    ...Object.entries(constants).map(([name, value]) => `const ${name} = ${value};`),
    `struct Scalars { ${fields.join(", ")} }`,
    `@group(0) @binding(${scalarBinding}) var<uniform> scalars: Scalars;`,
    `const SCRATCH = ${scalarBinding + 1};`,
    ...files.flatMap((file) => selectLines(file, constants)),
  ].join("\n");
}

const declaration = /@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>/g;

/** How assembled code declares the scratch memory; null where it does not. */
export function scratchAccess(code: string): Access | null {
  const access = code.match(/@group\(0\)\s*@binding\(SCRATCH\)\s*var<storage,\s*(read|read_write)>/)?.[1];
  return (access as Access | undefined) ?? null;
}

/** Bindings that assembled code declares, with their access. */
export function declaredBindings(code: string): Map<number, Access> {
  return new Map([...code.matchAll(declaration)].map((match) => [Number(match[1]), match[2] as Access]));
}

/** The same code with the bindings `which` declared as written. */
export function declareWritten(code: string, which: ReadonlySet<number>): string {
  return code.replaceAll(declaration, (text, index) =>
    which.has(Number(index)) ? `@group(0) @binding(${index}) var<storage, read_write>` : text,
  );
}
