/** USB barcode scanners that type ("keyboard wedges"), told from people by their speed. Pure: no DOM. */

export const MIN_LENGTH = 4;
// Scanners send a key every 1 to 30 ms, a loaded computer passes some of them on late; the fastest typists need 80 ms
// on average. Outside of text fields nobody types words, so there a slow one is believed as well.
const LONGEST_GAP_MS = 600;
const MEAN_GAP_MS = { field: 70, elsewhere: 300 };
const TORN_MS = 3000; // how long after a burst that broke off its rest may still come
const SINGLE_MS = 70; // a key before and after which nothing came for so long was pressed by a finger

/**
 * Feed it every key press. A burst of at least MIN_LENGTH characters that ends in Enter or Tab is a scan; single keys
 * are handed on to `onKey` once it is likely that no burst follows.
 */
export class WedgeScanner {
  constructor({ onScan, onTorn = () => {}, onKey = () => {}, setTimer = setTimeout, clearTimer = clearTimeout }) {
    this.onScan = onScan;
    this.onTorn = onTorn; // a burst broke off, as on a computer that stands still: its end alone is a wrong number
    this.onKey = onKey;
    this.tornAt = -Infinity;
    this.setTimer = (run, ms) => setTimer(run, ms);
    this.clearTimer = (timer) => clearTimer(timer);
    this.timer = null;
    this.#reset();
  }

  /** Characters of the burst that is going on at `time`, 0 for none. */
  pending(time) {
    return time - this.last <= LONGEST_GAP_MS ? this.text.length : 0;
  }

  /**
   * @param {string} key as KeyboardEvent.key says
   * @param {number} time in milliseconds
   * @param {boolean} inField whether a text field has the focus
   * @returns {"burst" | "scan" | "single"} burst: part of what looks like a scan; scan: it ended with this key
   */
  feed(key, time, inField = false) {
    if (time - this.last > LONGEST_GAP_MS) {
      const burst = this.#quick(this.last, this.text.length - 1, inField) && !this.#fingers;
      if (burst && time - this.last <= TORN_MS) this.tornAt = time;
      this.#reset();
    }
    if (key === "Enter" || key === "Tab") {
      const { text } = this;
      const torn = time - this.tornAt <= TORN_MS;
      const quick = this.#quick(time, text.length, inField) && !this.#fingers;
      const scan = quick && (text.length >= MIN_LENGTH || torn);
      if (scan) this.#reset();
      else this.#settle();
      this.tornAt = -Infinity;
      if (scan && torn) this.onTorn();
      else if (scan) this.onScan(text);
      return scan ? "scan" : "single";
    }
    if (key.length !== 1) {
      if (key !== "Shift") this.#settle(); // it comes between the capitals of a scan
      return "single";
    }
    const alone = time - this.last > SINGLE_MS;
    if (!this.text) this.first = time;
    this.text += key;
    this.last = time;
    this.clearTimer(this.timer);
    this.timer = null;
    if (!alone) return "burst";
    this.timer = this.setTimer(() => {
      this.timer = null;
      this.onKey(key);
    }, SINGLE_MS);
    return this.text.length > 1 ? "burst" : "single";
  }

  /** What came before belongs to no scan: a lone key that still waits was pressed by a finger. */
  #settle() {
    const lone = this.timer !== null ? this.text.at(-1) : "";
    this.#reset();
    if (lone) this.onKey(lone);
  }

  /** Whether keys came faster than from fingers: so many gaps between the first one and `end`. */
  #quick(end, gaps, inField) {
    return gaps > 0 && (end - this.first) / gaps <= MEAN_GAP_MS[inField ? "field" : "elsewhere"];
  }

  /** One key again and again, as somebody presses who looks for the next shape: no code consists of that. */
  get #fingers() {
    return new Set(this.text.toLowerCase()).size === 1 && /\D/.test(this.text);
  }

  #reset() {
    this.clearTimer(this.timer);
    this.timer = null;
    this.text = "";
    this.first = this.last = -Infinity;
  }
}
