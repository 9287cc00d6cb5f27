/** Texts by file: strings/index.json lists the languages, English fills what one of them lacks. */

const BASE = new URL("../../strings/", import.meta.url);

/**
 * Which of the languages there are suits a reader best.
 *
 * @param {readonly string[]} wanted as navigator.languages says, best first
 * @param {string[]} available
 */
export function pickLanguage(wanted, available) {
  for (const tag of wanted) {
    const low = tag.toLowerCase();
    const found =
      available.find((name) => name.toLowerCase() === low) ??
      available.find((name) => name.toLowerCase() === low.split("-")[0]);
    if (found) return found;
  }
  return available.includes("en") ? "en" : available[0];
}

/**
 * @param {string} language
 * @param {Record<string, string | Record<string, string>>} strings a text, or texts by plural category
 * @param {Record<string, string | Record<string, string>>} fallback English
 * @returns {(key: string, values?: Record<string, string | number>) => string}
 */
export function translator(language, strings, fallback) {
  const rules = { own: new Intl.PluralRules(language), en: new Intl.PluralRules("en") };
  return (key, values = {}) => {
    const own = key in strings;
    let text = own ? strings[key] : fallback[key];
    if (text === undefined) return key;
    if (typeof text === "object") text = text[(own ? rules.own : rules.en).select(Number(values.n ?? 0))] ?? text.other;
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  };
}

const files = new Map();

async function load(name) {
  if (!files.has(name)) {
    const answer = await fetch(new URL(`${name}.json`, BASE));
    if (!answer.ok) throw new Error(`strings/${name}.json: HTTP ${answer.status}`);
    files.set(name, await answer.json());
  }
  return files.get(name);
}

/** [{code, name}] of every language there is. */
export async function languages() {
  return (await load("index")).languages;
}

export async function loadTranslator(language) {
  const [strings, fallback] = await Promise.all([load(language), load("en")]);
  return translator(language, strings, fallback);
}
