import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, it } from "vitest";

const root = join(import.meta.dirname, "..", "..");

/** Every module that `entry` imports at run time, itself included: files by path, packages by name. */
function importsOf(entry: string, found = new Set<string>()): Set<string> {
  if (found.has(entry)) return found;
  found.add(entry);
  const text = readFileSync(join(root, entry), "utf8");
  const statements = /(?:^|\n)(?:import|export)\s+(?!type\b)(?:[^;"']*?\sfrom\s+)?["']([^"']+)["']/g;
  for (const [, target = ""] of text.matchAll(statements)) {
    if (target.startsWith(".")) importsOf(relative(root, join(root, dirname(entry), target)), found);
    else found.add(target);
  }
  return found;
}

it.each(["src/economics/index.ts", "src/formats/config.ts"])(
  "%s needs no Node module: a page can plan",
  (entry) => {
    const imports = [...importsOf(entry)];
    expect(imports).toContain("src/base/checks.ts");
    const packages = imports.filter((name) => !name.startsWith("src/"));
    expect(packages.filter((name) => !name.startsWith("zod"))).toEqual([]);
  },
);
