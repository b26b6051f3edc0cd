/** Where the string that starts at `start` of the valid JSON `text` ends, past its closing quote. */
function endOfString(text: string, start: number): number {
  let end = start + 1;
  while (text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
  return end + 1;
}

/**
 * The first key that an object in `text`, which must be valid JSON, holds twice; undefined when there is none.
 * `JSON.parse` keeps the last of them without a word.
 */
export function findDuplicateKey(text: string): string | undefined {
  const scopes: (Set<string> | null)[] = [];
  const token = /["{}[\]]/g;
  const colon = /\s*:/y;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    if (match[0] === "{") scopes.push(new Set());
    else if (match[0] === "[") scopes.push(null);
    else if (match[0] !== '"') scopes.pop();
    else {
      token.lastIndex = endOfString(text, match.index);
      colon.lastIndex = token.lastIndex;
      const scope = scopes.at(-1);
      if (!scope || !colon.test(text)) continue;
      const key = JSON.parse(text.slice(match.index, token.lastIndex)) as string;
      if (scope.has(key)) return key;
      scope.add(key);
    }
  }
  return undefined;
}
