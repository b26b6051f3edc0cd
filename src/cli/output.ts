import pc from "picocolors";

/** Colour functions; plain text unless the stream is a terminal and NO_COLOR is unset. */
export const paint = pc.createColors(process.stdout.isTTY === true && !process.env.NO_COLOR);

/** The same for standard error. */
export const paintError = pc.createColors(process.stderr.isTTY === true && !process.env.NO_COLOR);

/** Writes one line to standard output. */
export function printLine(text = ""): void {
  process.stdout.write(`${text}\n`);
}

/** Writes one line to standard error: notes that a script reading standard output must not see. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A value as one JSON line. */
export function printJson(value: unknown): void {
  printLine(JSON.stringify(value));
}

/** Rows as aligned columns; the first row is the head. Numbers should come formatted. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => (row[i] ?? "").length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Bytes for people: 1536 → "1.5 KiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 2 ** (10 * power);
  return `${power === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[power]}`;
}
