import type { WgslSource } from "../device.ts";

/**
 * The texts of all `.wgsl` files by name, as deflated JSON in base 64: a third of what they take otherwise. The build moves them
 * here from the modules of dist/; those of src/ hold their own.
 */
const packed: string = "";

let texts: ReadonlyMap<string, string> = new Map();

/** Makes {@link textOf} know every text. */
export async function unpackWgsl(): Promise<void> {
  if (packed === "" || texts.size > 0) return;
  const deflated = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  texts = new Map(Object.entries((await new Response(stream).json()) as Record<string, string>));
}

/** The text of a file. */
export function textOf({ name, text }: WgslSource): string {
  const found = text === "" ? texts.get(name) : text;
  if (found === undefined) throw new Error(`${name} has no text; build the package anew`);
  return found;
}
