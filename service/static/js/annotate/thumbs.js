/** Small pictures for the strip, made in the browser one after the other. */

import { OfflineError } from "../lib/retry.js";

const HEIGHT = 112;
const KEPT = 300;

export class Thumbs {
  /** @param {import("./session.js").Session} session */
  constructor(session, onMade) {
    Object.assign(this, { session, onMade });
    this.made = new Map(); // key -> address of the small picture, or null when it could not be made
    this.waiting = [];
    this.busy = false;
  }

  get(key) {
    return this.made.get(key) ?? null;
  }

  /** Ask for these, the first one first; those asked for before and not begun are forgotten. */
  want(keys) {
    this.waiting = keys.filter((key) => !this.made.has(key));
    if (!this.busy) this.#work();
  }

  async #work() {
    this.busy = true;
    let key;
    while ((key = this.waiting.shift())) {
      try {
        this.#keep(key, await this.#make(await this.session.images.passing(key)));
      } catch (error) {
        if (error instanceof OfflineError) this.waiting = []; // asked for again when the strip moves
        else this.#keep(key, null); // the strip shows the photo's number instead
      }
      this.onMade();
    }
    this.busy = false;
  }

  #keep(key, address) {
    this.made.set(key, address);
    if (this.made.size <= KEPT) return;
    const [oldest, old] = this.made.entries().next().value;
    if (old) URL.revokeObjectURL(old);
    this.made.delete(oldest);
  }

  async #make(blob) {
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    const canvas = new OffscreenCanvas(Math.max(1, Math.round((bitmap.width * HEIGHT) / bitmap.height)), HEIGHT);
    const c = canvas.getContext("2d");
    c.imageSmoothingQuality = "medium";
    c.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return URL.createObjectURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 }));
  }
}
