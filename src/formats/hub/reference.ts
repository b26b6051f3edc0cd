/** A model of the hub at one revision: a branch, a tag or a commit. */
export interface ModelReference {
  /** `owner/name` */
  readonly name: string;
  readonly revision: string;
}

const namePart = /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?$/;

/**
 * Reads `owner/name` or `owner/name@revision` (the revision is "main" when not given); undefined when `text` is
 * neither. Names and revisions never lead out of a folder: no empty part, no "..", no leading dot.
 */
export function parseModelReference(text: string): ModelReference | undefined {
  const [name = "", revision = "main", ...rest] = text.split("@");
  const parts = name.split("/");
  if (rest.length > 0 || parts.length !== 2) return undefined;
  if (!parts.every((part) => namePart.test(part) && !/--|\.\./.test(part))) return undefined;
  if (!revision.split("/").every((part) => /^[\w-][\w.-]*$/.test(part))) return undefined;
  return { name, revision };
}
