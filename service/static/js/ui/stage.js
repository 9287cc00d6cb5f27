/** The photo, and everything that is done on it: by finger, mouse and keyboard. */

import { html, useEffect, useLayoutEffect, useRef } from "../../vendor/preact.js";
import { paintAmbient } from "../lib/ambient.js";
import { bindGestures, LONG_PRESS_MS } from "../lib/gestures.js";
import { boxBetween, clamp, contain, onPhoto, roundXy, toPhoto } from "../lib/geometry.js";
import { Overlay } from "../lib/outline.js";

const REACH = 24; // a tap this close beside the photo means its edge

/** Everything between the DOM and the prompts; one per photo. */
class StageControl {
  constructor(kiosk, { element, lower, upper, image, ambient }) {
    Object.assign(this, { kiosk, element, image, ambient });
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.overlay = new Overlay(lower, upper, { still });
    this.cross = null;
    this.corner = null;
    this.unbind = bindGestures(element, {
      press: (x, y) => this.#press(x, y),
      tap: (x, y, background) => this.#tap(x, y, background),
      drag: (from, to) => this.overlay.update({ rubber: this.#box(from, to), press: null }),
      drop: (from, to) => this.#drop(from, to),
      cancel: () => this.overlay.update({ rubber: null, press: null }),
    });
    this.observer = new ResizeObserver(() => this.layout());
    this.observer.observe(element);
    kiosk.boxKey = () => document.activeElement === element && this.#corner();
    this.layout();
  }

  close() {
    this.unbind();
    this.observer.disconnect();
    this.overlay.stop();
    this.kiosk.boxKey = null;
  }

  layout() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const { photo } = this.kiosk.state;
    if (!photo || !width || !height) return;
    const style = getComputedStyle(this.element);
    const inset = (name) => Number.parseFloat(style.getPropertyValue(name)) || 0;
    const insets = {
      top: inset("padding-top"),
      right: inset("padding-right"),
      bottom: inset("padding-bottom"),
      left: inset("padding-left"),
    };
    this.fit = contain(photo.width, photo.height, { width, height }, insets);
    for (const [name, value] of Object.entries({
      left: this.fit.x,
      top: this.fit.y,
      width: this.fit.width,
      height: this.fit.height,
    })) {
      this.image.style.setProperty(name, `${value}px`);
    }
    this.overlay.resize(width, height, Math.min(window.devicePixelRatio || 1, 2));
    this.overlay.update({ fit: this.fit });
  }

  show(state) {
    const { step, chosen, marks } = state;
    const hidden = Math.max(0, (step?.unseen ?? 0) - 1);
    const points = [...(step?.points.slice(hidden) ?? []), ...marks.filter((m) => m.point).map((m) => m.point)];
    const labels = [...(step?.labels.slice(hidden) ?? []), ...marks.filter((m) => m.point).map((m) => m.label)];
    const waiting = marks.findLast((m) => m.box);
    this.overlay.update({
      mask: step?.answer.masks[chosen] ?? null,
      tidy: state.tidy,
      points,
      labels,
      box: waiting?.box ?? (step?.unseen ? null : step?.box) ?? null,
    });
  }

  paintAmbient() {
    paintAmbient(this.ambient, this.image);
  }

  #press(x, y) {
    if (!this.kiosk.state.step || !onPhoto(this.fit, x, y)) return;
    this.overlay.update({ press: { x, y, since: performance.now(), ms: LONG_PRESS_MS } });
  }

  #tap(x, y, background) {
    this.overlay.update({ press: null, rubber: null, cross: null });
    this.cross = null;
    if (!onPhoto(this.fit, x, y, REACH)) return;
    this.#ask(roundXy(toPhoto(this.fit, x, y)), background);
  }

  #ask(point, background) {
    const { kiosk } = this;
    const remove = background || kiosk.state.mode === "remove";
    kiosk.editing?.tap(point, remove ? 0 : 1);
  }

  #box(from, to) {
    return boxBetween(toPhoto(this.fit, ...from), toPhoto(this.fit, ...to));
  }

  #drop(from, to) {
    this.overlay.update({ rubber: null, press: null });
    const box = this.#box(from, to);
    if (box[2] - box[0] < 2 || box[3] - box[1] < 2) return;
    this.kiosk.editing?.drag([...roundXy(box.slice(0, 2)), ...roundXy(box.slice(2))]);
  }

  // --- keyboard ------------------------------------------------------------------------------------------------------

  key(event) {
    const { photo } = this.kiosk.state;
    const step = Math.max(1, Math.max(photo.width, photo.height) / (event.altKey ? 400 : 50));
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) this.#move(moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.#enter(event.shiftKey);
    else if (event.key === "Escape" && this.corner) this.#endCorner();
    else return;
    event.preventDefault();
  }

  #move([dx, dy]) {
    const { photo } = this.kiosk.state;
    this.cross ??= [photo.width / 2, photo.height / 2];
    this.cross = [clamp(this.cross[0] + dx, 0, photo.width - 1), clamp(this.cross[1] + dy, 0, photo.height - 1)];
    const rubber = this.corner ? boxBetween(this.corner, this.cross) : null;
    this.overlay.update({ cross: this.cross, rubber });
  }

  #enter(background) {
    const { photo } = this.kiosk.state;
    this.cross ??= [photo.width / 2, photo.height / 2];
    this.overlay.update({ cross: this.cross });
    if (this.corner) this.#corner();
    else this.#ask(roundXy(this.cross), background);
  }

  /** B sets the first corner of a box, and then the second one. */
  #corner() {
    if (!this.cross) this.#move([0, 0]);
    if (!this.corner) {
      this.corner = this.cross;
      this.kiosk.say("say.corner");
      return;
    }
    const box = boxBetween(this.corner, this.cross);
    this.#endCorner();
    if (box[2] - box[0] >= 2 && box[3] - box[1] >= 2) {
      this.kiosk.editing?.drag([...roundXy(box.slice(0, 2)), ...roundXy(box.slice(2))]);
    }
  }

  #endCorner() {
    this.corner = null;
    this.overlay.update({ rubber: null });
  }
}

export function Stage({ kiosk, state, t, phase }) {
  const refs = {
    element: useRef(null),
    lower: useRef(null),
    upper: useRef(null),
    image: useRef(null),
    ambient: useRef(null),
  };
  const control = useRef(null);
  const { photo } = state;
  useLayoutEffect(() => {
    const parts = Object.fromEntries(Object.entries(refs).map(([name, ref]) => [name, ref.current]));
    const made = new StageControl(kiosk, parts);
    control.current = made;
    kiosk.overlay = made.overlay;
    parts.element.focus({ preventScroll: true });
    return () => made.close();
  }, [photo.url]);
  useEffect(() => control.current?.layout(), [photo.width, photo.height]);
  useEffect(() => control.current?.show(state), [state.step, state.chosen, state.marks, state.tidy]);
  return html`
    <canvas class="ambient" ref=${refs.ambient} aria-hidden="true"></canvas>
    <div
      class="stage stage--${phase}"
      data-testid="stage"
      data-mode=${state.mode}
      ref=${refs.element}
      tabindex="0"
      role="application"
      aria-label=${t("stage.label")}
      aria-describedby="stage-help"
      onKeyDown=${(event) => control.current?.key(event)}
    >
      <img
        class="stage__photo"
        src=${photo.url}
        alt=${t("stage.photo")}
        ref=${refs.image}
        draggable="false"
        onLoad=${() => control.current?.paintAmbient()}
      />
      <canvas class="stage__overlay" ref=${refs.lower} aria-hidden="true"></canvas>
      <canvas class="stage__overlay" ref=${refs.upper} aria-hidden="true"></canvas>
    </div>
    <p class="visually-hidden" id="stage-help">${t("stage.help")}</p>
  `;
}
