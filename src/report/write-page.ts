import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { errorMessage, UserError } from "../base/errors.ts";
import { type ReportPage, renderPage } from "./page.ts";

/**
 * Renders `page` and writes it to the file at `path`, making its folder. Rejects with a UserError when the file cannot be
 * written.
 */
export async function writePage(page: ReportPage, path: string): Promise<void> {
  const html = await renderPage(page);
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, html);
  } catch (error) {
    const problem = `The report cannot be written to ${path} (${errorMessage(error)}); give another --html path.`;
    throw new UserError(problem, { cause: error });
  }
}
