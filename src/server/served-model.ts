import type { GenerationEngine } from "../engine/engine-types.ts";
import type { GenerationDefaults } from "../formats/model-folder.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Grammars } from "./grammar/grammars.ts";

/** One model, ready to answer. */
export interface ServedModel {
  /** The name clients ask for. */
  readonly name: string;
  /** Unix seconds. */
  readonly created: number;
  readonly engine: GenerationEngine;
  readonly tokenizer: Tokenizer;
  readonly defaults: GenerationDefaults;
  /** Makes the masks of `response_format` and forced tools. */
  readonly grammars: Grammars;
}
