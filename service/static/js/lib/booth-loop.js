/** The booth's loop as rules: which view a shot is, and what stops it. Pure: no DOM. */

/** What is counted as the same product. */
const same = (a, b) => a?.kind === b?.kind && a?.text === b?.text;

/**
 * The shot that a scan asks for: a product that was scanned before is shot from the next angle.
 *
 * @param {{number: {kind: string, text?: string}, angle: number} | null} last saved
 * @param {{kind: string, text?: string}} number
 * @returns {{number: object, angle: number}}
 */
export function nextShot(last, number) {
  const again = last && number.kind !== "none" && same(last.number, number);
  return { number, angle: again ? last.angle + 1 : 1 };
}

/**
 * Why a finished shot stops the loop, or null.
 *
 * @param {{light: string, code: string} | null} verdict of the cut-out
 */
export function stopFor(verdict) {
  if (!verdict) return "no-mask";
  return verdict.light === "green" ? null : verdict.code;
}

/** Captures of this very day among records, by the clock on the wall. */
export function countToday(records, now = new Date()) {
  const day = now.toDateString();
  return records.filter((record) => new Date(record.received_at).toDateString() === day).length;
}
