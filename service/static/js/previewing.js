/** The live cut-out: one small transparent picture per mask, shown on any background by CSS, or a shop's finished picture. */

import { isAbort } from "./lib/api.js";
import { fileFields, shopName, shopOf, tidyFields } from "./look.js";
import { shopVerdict, verdictOf } from "./phase.js";

export const PREVIEW_SIDE = 900;
const DEBOUNCE_MS = 90;

export class Previewing {
  constructor(store, api, onError) {
    this.store = store;
    this.api = api;
    this.onError = onError;
    this.timer = null;
    this.serial = 0;
  }

  /** @param {import("./editing.js").Editing | null} editing whose shown mask is to be previewed; null: none */
  refresh(editing) {
    clearTimeout(this.timer);
    this.abort?.abort(new DOMException("a newer preview", "AbortError"));
    const serial = ++this.serial;
    if (!editing?.step) return this.#replace(null);
    this.store.set({ previewing: true });
    this.timer = setTimeout(() => void this.#fetch(editing, serial), DEBOUNCE_MS);
    return undefined;
  }

  /** The verdict on the shown mask, as soon as its preview is there; null when it failed. */
  verdict() {
    return new Promise((resolve) => {
      const look = ({ preview, previewing }) => {
        if (previewing) return;
        stop();
        resolve(preview?.verdict ?? null);
      };
      const stop = this.store.subscribe(look);
      queueMicrotask(() => look(this.store.state));
    });
  }

  /** Show the cut-out of a capture, whose mask this page never had, with the verdict that the service gave. */
  async stored(id, verdict, editing) {
    const { blob } = await this.api.blob("GET", `/captures/${id}/cutout`, { signal: editing.signal });
    this.#replace({ url: URL.createObjectURL(blob), verdict, score: 1, logits: "" });
  }

  async #fetch(editing, serial) {
    this.abort = new AbortController();
    const signal = AbortSignal.any([this.abort.signal, editing.signal]);
    const shop = shopOf(this.store.state);
    try {
      const preview = shop ? await this.#forShop(editing, shop, signal) : await this.#cutOut(editing, signal);
      if (serial === this.serial) this.#replace(preview);
      else URL.revokeObjectURL(preview.url);
    } catch (error) {
      if (serial !== this.serial || isAbort(error)) return;
      this.#replace(null);
      this.onError(error);
    }
  }

  #cutOut(editing, signal) {
    const look = { background: "transparent", format: "png", max_side: PREVIEW_SIDE };
    return this.#ask(editing, { ...tidyFields(this.store.state), ...look }, signal);
  }

  /** The very file that is downloaded: only a finished picture can be held against a shop's rules. */
  async #forShop(editing, shop, signal) {
    try {
      const preview = await this.#ask(editing, fileFields(this.store.state), signal);
      return { ...preview, shop: shop.name };
    } catch (error) {
      if (error?.code !== "preset_failed") throw error;
      const preview = await this.#cutOut(editing, signal);
      const verdict = shopVerdict(preview.verdict, error.headers.get("X-Preset"), shopName(shop), true);
      return { ...preview, verdict, refused: true };
    }
  }

  async #ask(editing, fields, signal) {
    let logits = "";
    const { blob, headers } = await editing.withMask((id, mask, step) => {
      logits = mask.logits_id;
      return editing.api.blob("POST", `/embeddings/${id}/cutout`, { json: cutout(mask, step, fields), signal });
    });
    const verdict = this.#verdict(headers);
    return { url: URL.createObjectURL(blob), verdict, score: Number(headers.get("X-Mask-Score")), logits };
  }

  #verdict(headers) {
    const verdict = verdictOf(headers.get("X-Retake"));
    const shop = shopOf(this.store.state);
    return shop ? shopVerdict(verdict, headers.get("X-Preset"), shopName(shop)) : verdict;
  }

  #replace(preview) {
    const old = this.store.state.preview;
    this.store.set({ preview, previewing: false });
    if (old) setTimeout(() => URL.revokeObjectURL(old.url), 1000);
  }
}

/** The body of POST /embeddings/{id}/cutout. */
export function cutout(mask, step, options) {
  return { logits_id: mask.logits_id, ...(step.box ? { limits: step.box } : {}), ...options };
}
