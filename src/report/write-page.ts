import { replaceWithText } from "../files/replace-file.ts";
import { type ReportPage, renderPage } from "./page.ts";

/**
 * Renders `page` and writes it to the file at `path`, making its folder; the file appears when it is complete. Rejects with
 * a UserError when it cannot be written.
 */
export async function writePage(page: ReportPage, path: string): Promise<void> {
  await replaceWithText(path, await renderPage(page));
}
