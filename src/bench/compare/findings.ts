import { threeDigits } from "../report.ts";
import { ownFigures } from "./published-tables.ts";
import type { CompareRow } from "./rows.ts";
import type { CompareFormId } from "./shapes.ts";
import { percent } from "./tables.ts";
import { medianShares, type TuningShare } from "./tuning.ts";

/** Flash attention's share of latent attention's own from which on its kernel counts as tuned as well. */
const FAIR = 0.8;

function sentenceOnTuning(shares: readonly TuningShare[]): string[] {
  const medians = medianShares(shares);
  const [flash, latent] = [medians.get("flash"), medians.get("latent-512")];
  if (flash === undefined || latent === undefined) return [];
  const isFair = flash >= FAIR * latent;
  const best = (form: CompareFormId) =>
    percent(Math.max(...shares.filter((one) => one.form === form).map(({ share }) => share)));
  return [
    `Of the ceiling that binds it, flash attention's kernel reaches ${percent(flash)} and latent attention's (512) ${percent(latent)} (medians over the ` +
      `cells that every form fits; ${best("flash")} and ${best("latent-512")} at best): the comparison ${isFair ? "does not favour" : "favours"} latent attention.`,
  ];
}

/** What was found, a sentence each. */
export function findings(rows: readonly CompareRow[], shares: readonly TuningShare[]): string[] {
  const measured = rows.filter(({ outcome }) => outcome.status === "measured").length;
  const sentences = [`${measured} of ${rows.length} rows were measured; the others say why not.`];
  const own = ownFigures(rows);
  const ms = own?.rows.map(({ outcome }) => (outcome.status === "measured" ? outcome.milliseconds : 0));
  if (own !== null && ms !== undefined) {
    const [standard, flash, wide, narrow] = ms as [number, number, number, number];
    sentences.push(
      `Whole model, one sequence of ${own.context} tokens: ${ms.map(threeDigits).join(" / ")} ms per token for standard, flash, ` +
        `latent 512 and latent 256; latent 512 takes ${(wide / flash).toFixed(2)} of flash's time and ` +
        `${(wide / standard).toFixed(2)} of standard's, latent 256 ${(narrow / flash).toFixed(2)} of flash's.`,
    );
    const [full, , latent] = own.rows;
    const share = ((100 * latent!.cacheBytes) / full!.cacheBytes).toFixed(1);
    sentences.push(
      `The latent cache of d_c=512 takes ${share} % of the bytes of all heads' keys and values.`,
    );
  }
  return [...sentences, ...sentenceOnTuning(shares)];
}
