/** What leaves the page: downloads, the clipboard, captures; and barcodes that are read from the photo. */

import { isAbort } from "./lib/api.js";
import { readNumber } from "./lib/gtin.js";
import { retrying } from "./lib/retry.js";
import { fileFields, fileFormat, tidyFields } from "./look.js";
import { cutout } from "./previewing.js";

export class Saving {
  constructor(kiosk) {
    this.kiosk = kiosk;
    this.key = null;
  }

  /** The picture as it is saved: full size, on the chosen background, or as a shop wants it. */
  async #picture(format) {
    const { kiosk } = this;
    const { editing } = kiosk;
    const options = fileFields(kiosk.state, format);
    const { blob } = await editing.withMask((id, mask, step) =>
      editing.api.blob("POST", `/embeddings/${id}/cutout`, {
        json: cutout(mask, step, options),
        signal: editing.signal,
      }),
    );
    return blob;
  }

  async download() {
    const { kiosk } = this;
    if (!kiosk.state.step || kiosk.state.saving) return;
    await this.#busy(async () => {
      const format = fileFormat(kiosk.state);
      const blob = await this.#picture();
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${this.#name()}.${format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      kiosk.toast("toast.downloaded", "good", { name: link.download });
      kiosk.say("toast.downloaded", { name: link.download });
    });
  }

  #name() {
    const { number } = this.kiosk.state;
    const safe = (number.text ?? "")
      .replace(/[^\p{L}\p{N}._-]+/gu, "-")
      .replace(/^[.-]+/, "")
      .slice(0, 60);
    if (safe) return safe;
    const now = new Date();
    const two = (n) => String(n).padStart(2, "0");
    const day = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
    return `boothsam-${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
  }

  get canCopy() {
    return typeof ClipboardItem === "function" && Boolean(navigator.clipboard?.write);
  }

  async copy() {
    const { kiosk } = this;
    if (!kiosk.state.step || kiosk.state.saving) return;
    if (!this.canCopy) {
      kiosk.toast("toast.no-clipboard", "warn");
      return;
    }
    await this.#busy(async () => {
      // The promise goes into the item: the clipboard must be asked for while the tap is still fresh.
      const picture = this.#picture("png");
      await Promise.all([navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]), picture]);
      kiosk.toast("toast.copied", "good");
      kiosk.say("toast.copied");
    });
  }

  /** Store the photo with this mask as a capture. */
  async capture(more = {}) {
    const { kiosk } = this;
    const { editing } = kiosk;
    const { step, saving, number } = kiosk.state;
    if (!step || saving || number.kind === "wrong") return null;
    return this.#busy(async () => {
      const record = await editing.withMask((id, mask) =>
        this.#post(editing, { ...labels(number), ...more }, { id, mask }),
      );
      kiosk.set({ saved: record });
      kiosk.counted(record.id);
      kiosk.say("say.saved", { name: number.text ?? "" });
      return record;
    });
  }

  /**
   * One capture under one idempotency key: however often this is sent, it is stored once.
   *
   * @param {object | null} made {id, mask} of what was segmented; null lets the service find the product
   */
  async #post(editing, named, made) {
    const tidy = tidyFields(this.kiosk.state);
    const content = JSON.stringify([named, tidy, made?.id, made?.mask.logits_id, editing.photo.url]);
    if (this.key?.content !== content)
      this.key = { content, value: `kiosk-${crypto.getRandomValues(new Uint32Array(4)).join("-")}` };
    const form = new FormData();
    form.append("image_file", editing.photo.blob, "photo");
    if (made) {
      form.append("embedding_id", made.id);
      form.append("logits_id", made.mask.logits_id);
    }
    for (const [name, value] of Object.entries({ ...named, ...tidy })) form.append(name, String(value));
    const headers = { "Idempotency-Key": this.key.value };
    return retrying(
      () => editing.api.json("POST", "/captures", { form, headers, signal: editing.signal }),
      editing.retry,
    );
  }

  /** For the booth's loop: store with the mask of a step, or as the service finds it. */
  async store(editing, named, step) {
    if (step) return editing.withMask((id, mask) => this.#post(editing, named, { id, mask }), step);
    return this.#post(editing, named, null);
  }

  /** Read barcodes from the photo; the only one is taken at once, several are offered. */
  async readCodes() {
    const { kiosk } = this;
    const { editing } = kiosk;
    if (!editing || kiosk.state.reading) return;
    kiosk.set({ reading: true });
    try {
      const { codes } = await editing.withEmbedding((id) =>
        editing.api.json("POST", "/codes", { json: { embedding_id: id }, signal: editing.signal }),
      );
      const texts = [...new Set(codes.map((code) => code.text).filter(Boolean))];
      const valid = texts.filter((text) => readNumber(text).kind === "gtin");
      if (texts.length === 0) kiosk.toast("toast.no-code", "warn");
      else if (texts.length === 1 || valid.length === 1) kiosk.setNumber(valid[0] ?? texts[0]);
      else kiosk.set({ codes: texts.slice(0, 4) });
    } catch (error) {
      kiosk.tell(error);
    } finally {
      if (!editing.signal.aborted) kiosk.set({ reading: false });
    }
  }

  async #busy(work) {
    const { kiosk } = this;
    const { editing } = kiosk;
    kiosk.set({ saving: true });
    try {
      return await work();
    } catch (error) {
      if (!isAbort(error)) kiosk.tell(error);
      return null;
    } finally {
      if (!editing.signal.aborted) kiosk.set({ saving: false });
    }
  }
}

/** sku and gtin fields of what was typed or scanned. */
export function labels(number) {
  if (number.kind === "gtin") return { gtin: number.text, sku: number.text };
  return number.kind === "sku" ? { sku: number.text } : {};
}
