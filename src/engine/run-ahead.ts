import type { DecodeRow } from "./runner-types.ts";

/** Rows up to which a step is begun ahead: with more of them sequences end too often, and the step is for nothing. */
export const MOST_ROWS_AHEAD = 4;

/** A decode step under way before its tokens were known to its caller: the device takes them from where the step before left them. */
export interface StepAhead {
  /** Its rows; token ids are those that the step before draws. */
  readonly rows: readonly DecodeRow[];
  /** What the step before drew, once it has come back. */
  tokenIds: Int32Array | null;
  readonly drawn: Promise<Int32Array>;
}

/**
 * The rows of the step that follows `rows` where every sequence goes on, as far as that can be told before anything is drawn; null
 * where a sequence is to end, a row draws nothing, or a page is not there yet.
 */
export function rowsAhead(
  rows: readonly DecodeRow[],
  { pageSize, maxContext }: { readonly pageSize: number; readonly maxContext: number },
): DecodeRow[] | null {
  if (rows.length > MOST_ROWS_AHEAD) return null;
  const next: DecodeRow[] = [];
  for (const { position: last, pages, sampling, continues } of rows) {
    const position = last + 1;
    const held = Math.floor(position / pageSize) + 1;
    if (continues !== true || sampling === null || position >= maxContext || held > pages.length) return null;
    const slot = pages[held - 1]! * pageSize + (position % pageSize);
    const drawn = { ...sampling, step: sampling.step + 1 };
    next.push({ tokenId: -1, position, slot, pages: pages.slice(0, held), sampling: drawn });
  }
  return next;
}

function isSameDraw(a: DecodeRow["sampling"], b: DecodeRow["sampling"]): boolean {
  if (a === null || b === null) return a === b;
  // The largest logit is taken whatever else is asked for.
  if (a.temperature === 0 && b.temperature === 0) return true;
  return (Object.keys(a) as (keyof typeof a)[]).every((name) => a[name] === b[name]);
}

/** Whether `rows` are what the step ahead computes, to the token. */
export function isStepAhead({ rows: expected, tokenIds }: StepAhead, rows: readonly DecodeRow[]): boolean {
  if (tokenIds === null || rows.length !== expected.length) return false;
  return rows.every((row, i) => {
    const { position, slot, pages, sampling } = expected[i]!;
    const isSamePlace = row.tokenId === tokenIds[i] && row.position === position && row.slot === slot;
    return (
      isSamePlace && pages.every((page, at) => row.pages[at] === page) && isSameDraw(sampling, row.sampling)
    );
  });
}
