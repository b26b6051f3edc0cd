import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { UserError } from "../../base/errors.ts";

/** What is used of the library. */
export type XGrammar = Pick<
  typeof import("@mlc-ai/web-xgrammar"),
  "TokenizerInfo" | "GrammarCompiler" | "GrammarMatcher"
>;

/** A fresh instance of the library, with the lines it printed last. */
export interface XGrammarInstance {
  readonly library: XGrammar;
  /** The library's last word, and forgets it: it prints why it aborted, and throws no more than that it did. */
  takeMessage(): string | undefined;
}

function isXGrammar(value: object): value is XGrammar {
  return "TokenizerInfo" in value && "GrammarCompiler" in value && "GrammarMatcher" in value;
}

/** The one import in the script, which code made at run time may not do everywhere; it wants `createRequire`. */
const IMPORT = "await import('module')";

/**
 * Loads the library. Its one file is a UMD script in a package that calls itself a module, so Node's `import` finds no
 * exports in it (0.1.27); it is run here as the CommonJS script it is. Each call makes an instance of its own: one that
 * aborted is given up, as its WebAssembly memory is not to be trusted.
 */
export function loadXGrammar(): XGrammarInstance {
  const file = createRequire(import.meta.url).resolve("@mlc-ai/web-xgrammar");
  const names = ["exports", "module", "require", "__filename", "__dirname", "console", "nodeModule"];
  const script = new Function(...names, readFileSync(file, "utf8").replace(IMPORT, "nodeModule"));
  const messages: string[] = [];
  const keep = (...parts: unknown[]) => {
    const line = parts.join(" ");
    if (!line.startsWith("Aborted(")) messages.splice(0, messages.length, line);
  };
  const exports = {};
  script(
    exports,
    { exports },
    createRequire(file),
    file,
    file,
    {
      ...console,
      log: keep,
      warn: keep,
      error: keep,
    },
    { createRequire },
  );
  if (!isXGrammar(exports)) throw new UserError("The grammar library could not be loaded; install it again.");
  return {
    library: exports,
    takeMessage: () => messages.pop()?.replace(/^\[\w+\] \S+?:\d+: /, ""),
  };
}
