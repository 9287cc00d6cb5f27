/** GTINs: 8, 12, 13 or 14 digits, the last one a check digit (GS1 General Specifications, 7.9). Pure. */

const LENGTHS = [8, 12, 13, 14];

/** The check digit that belongs behind these digits. */
export function checkDigit(digits) {
  let sum = 0;
  for (let i = digits.length - 1, weight = 3; i >= 0; i--, weight = 4 - weight) sum += weight * Number(digits[i]);
  return String((10 - (sum % 10)) % 10);
}

/**
 * What was typed or scanned: a GTIN, a GTIN with a wrong check digit, or the shop's own number.
 *
 * @param {string} text
 * @returns {{kind: "none"} | {kind: "sku", text: string} | {kind: "gtin", text: string}
 *   | {kind: "wrong", text: string, expected: string}}
 */
export function readNumber(text) {
  const trimmed = text.trim();
  if (!trimmed) return { kind: "none" };
  const digits = trimmed.replace(/[ -]/g, "");
  if (!/^[0-9]+$/.test(digits) || !LENGTHS.includes(digits.length)) return { kind: "sku", text: trimmed };
  const expected = checkDigit(digits.slice(0, -1));
  if (expected === digits.at(-1)) return { kind: "gtin", text: digits };
  return { kind: "wrong", text: digits, expected };
}
