/** The photo with what lies over it: accepted objects tinted, the running outline of the prompt, and the pointer. */

import { boxBetween, clamp, contain, onPhoto, roundXy, toPhoto } from "../lib/geometry.js";
import { bindGestures, LONG_PRESS_MS } from "../lib/gestures.js";
import { Overlay, OutlineCache, toPath } from "../lib/outline.js";
import { colourOf } from "./objects.js";

export class Stage {
  /**
   * @param {HTMLElement} element holds the canvases
   * @param {{session: import("./session.js").Session, still: boolean}} options still: nothing moves by itself
   */
  constructor(element, { session, still }) {
    Object.assign(this, { element, session });
    this.canvases = ["photo", "objects", "outline", "moving"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = `layer layer-${name}`;
      canvas.setAttribute("aria-hidden", "true");
      return element.appendChild(canvas);
    });
    this.overlay = new Overlay(this.canvases[2], this.canvases[3], { still });
    this.cache = new OutlineCache();
    this.bitmap = null;
    this.key = null;
    this.fit = null;
    this.cross = null;
    this.press = null;
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(element);
    const cancel = () => {
      this.#release();
      this.overlay.update({ rubber: null });
    };
    this.unbind = bindGestures(element, {
      press: (x, y) => this.overlay.update({ press: { x, y, since: performance.now(), ms: LONG_PRESS_MS }, cross: null }),
      tap: (x, y, background) => {
        cancel();
        if (this.fit && onPhoto(this.fit, x, y, 4)) this.#point(toPhoto(this.fit, x, y), background);
      },
      drag: (from, to) => {
        if (!this.fit) return;
        this.#release();
        this.overlay.update({ rubber: boxBetween(toPhoto(this.fit, ...from), toPhoto(this.fit, ...to)) });
      },
      drop: (from, to) => {
        cancel();
        if (!this.fit) return;
        const [a, b] = [toPhoto(this.fit, ...from), toPhoto(this.fit, ...to)].map(roundXy);
        session.box(boxBetween(a, b));
      },
      cancel,
    });
  }

  destroy() {
    this.observer.disconnect();
    this.unbind();
    this.overlay.stop();
    this.bitmap?.close();
  }

  #release() {
    this.overlay.update({ press: null });
  }

  #point(xy, background) {
    const { mode } = this.session.state;
    this.session.point(roundXy(xy), background || mode === "remove");
  }

  /** Show what the state says; called at every change. */
  show(state) {
    const photo = state.photos[state.index];
    if (photo && photo.key !== this.key) this.#open(photo);
    const { work } = state;
    const step = work?.prompts.present ?? null;
    const mask = step?.answer ? step.answer.masks[step.chosen] : null;
    // What the last answer outlined stays until the next one is there.
    const shown = mask ?? (state.state === "segmenting" ? step?.parent?.answer?.masks[step.parent.chosen] : null) ?? null;
    this.overlay.update({
      fit: this.fit, mask: shown, points: step?.points ?? [], labels: step?.labels ?? [], box: step?.box ?? null,
    });
    this.#objects(state);
  }

  async #open({ key, status }) {
    this.key = key;
    this.cross = null;
    this.bitmap?.close();
    this.bitmap = null;
    this.overlay.update({ cross: null });
    this.#layout();
    if (status === "broken") return;
    try {
      const blob = await this.session.images.get(key);
      const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
      if (this.key !== key) return bitmap.close();
      this.bitmap = bitmap;
    } catch (error) {
      if (this.key === key) this.session.say("failed", "error", { detail: error.message });
    }
    this.#layout();
    this.show(this.session.state);
  }

  #resize() {
    const { width, height } = this.element.getBoundingClientRect();
    this.size = { width, height };
    this.ratio = Math.min(2, globalThis.devicePixelRatio || 1);
    for (const canvas of this.canvases.slice(0, 2)) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
    }
    this.overlay.resize(width, height, this.ratio);
    this.#layout();
    this.show(this.session.state);
  }

  #layout() {
    if (!this.size) return;
    this.fit = this.bitmap ? contain(this.bitmap.width, this.bitmap.height, this.size) : null;
    this.painted = null;
    const c = this.canvases[0].getContext("2d");
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, this.size.width, this.size.height);
    c.imageSmoothingQuality = "high";
    this.element.dataset.shown = this.fit ? this.key : "";
    if (this.fit) c.drawImage(this.bitmap, this.fit.x, this.fit.y, this.fit.width, this.fit.height);
    this.overlay.update({ fit: this.fit });
  }

  /** Accepted objects in their category's colour; painted only when they, or where they lie, changed. */
  #objects({ work, categories, selected }) {
    const list = work?.list.present ?? [];
    const wanted = [this.fit, list, categories, selected];
    if (!this.size || (this.painted && wanted.every((value, i) => value === this.painted[i]))) return;
    this.painted = wanted;
    const c = this.canvases[1].getContext("2d");
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, this.size.width, this.size.height);
    if (!this.fit) return;
    list.forEach((object, index) => {
      const path = toPath(this.cache.of(object.mask), this.fit);
      const colour = colourOf(categories, object.category);
      c.globalAlpha = index === selected ? 0.62 : 0.42;
      c.fillStyle = colour;
      c.fill(path, "evenodd");
      c.globalAlpha = 1;
      c.lineJoin = "round";
      for (const [style, width] of [["rgba(9, 11, 16, 0.7)", index === selected ? 7 : 4], [colour, index === selected ? 4 : 2]]) {
        c.strokeStyle = style;
        c.lineWidth = width;
        c.stroke(path);
      }
    });
  }

  // By keyboard

  /** Move the crosshair by shares of the photo. */
  move(dx, dy) {
    if (!this.bitmap) return;
    const { width, height } = this.bitmap;
    const [x, y] = this.cross ?? [width / 2, height / 2];
    const side = Math.max(width, height);
    this.cross = [clamp(x + dx * side, 0, width - 1), clamp(y + dy * side, 0, height - 1)];
    this.overlay.update({ cross: this.cross });
  }

  /** A point at the crosshair. */
  tap(background) {
    if (this.cross) this.#point(this.cross, background);
    else this.move(0, 0);
  }
}
