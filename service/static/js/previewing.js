/** The live cut-out: one small transparent picture per mask, shown on any background by CSS; the newest wins. */

import { isAbort } from "./lib/api.js";
import { verdictOf } from "./phase.js";

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
  refresh(editing, look) {
    clearTimeout(this.timer);
    this.abort?.abort(new DOMException("a newer preview", "AbortError"));
    const serial = ++this.serial;
    if (!editing?.step) return this.#replace(null);
    this.store.set({ previewing: true });
    this.timer = setTimeout(() => void this.#fetch(editing, look, serial), DEBOUNCE_MS);
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

  /** Show the cut-out of a capture, whose mask this page never had. */
  async stored(id, editing) {
    const { blob } = await this.api.blob("GET", `/captures/${id}/cutout`, { signal: editing.signal });
    this.#replace({ url: URL.createObjectURL(blob), verdict: { light: "green", code: "ok" }, score: 1, logits: "" });
  }

  async #fetch(editing, look, serial) {
    this.abort = new AbortController();
    const signal = AbortSignal.any([this.abort.signal, editing.signal]);
    const options = { ...look, background: "transparent", format: "png", max_side: PREVIEW_SIDE };
    try {
      let logits = "";
      const { blob, headers } = await editing.withMask((id, mask, step) => {
        logits = mask.logits_id;
        return editing.api.blob("POST", `/embeddings/${id}/cutout`, { json: cutout(mask, step, options), signal });
      });
      if (serial !== this.serial) return;
      const verdict = verdictOf(headers.get("X-Retake"));
      this.#replace({ url: URL.createObjectURL(blob), verdict, score: Number(headers.get("X-Mask-Score")), logits });
    } catch (error) {
      if (serial !== this.serial || isAbort(error)) return;
      this.#replace(null);
      this.onError(error);
    }
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
