/** What is drawn over a photo: spotlight on the product, running outline, points, box, crosshair. */

import { outlinesOf } from "./rle.js";

const DARK = "rgba(9, 11, 16, 0.82)";
const LIGHT = "#ffffff";
const KEEP = "#1f6bff";
const REMOVE = "#d1243f";
const DIM = "rgba(9, 11, 16, 0.52)";

export const SMALL = 0.001; // share of the photo; what the service's fill_holes and drop_islands take for small

/** Outlines once per mask, whatever is drawn with them later. `traced` counts them for tests. */
export class OutlineCache {
  constructor() {
    this.known = new WeakMap();
    this.traced = 0;
    this.small = 0;
  }

  /** @param {boolean} on whether small holes and islands are left out */
  tidy(on) {
    const small = on ? SMALL : 0;
    if (small === this.small) return false;
    this.small = small;
    this.known = new WeakMap();
    return true;
  }

  of(mask) {
    let loops = this.known.get(mask);
    if (!loops) {
      loops = outlinesOf(mask.rle, this.small);
      this.known.set(mask, loops);
      this.traced += 1;
    }
    return loops;
  }
}

/** Outlines as a path on the screen, corners rounded by half a segment. */
export function toPath(loops, fit) {
  const path = new Path2D();
  for (const loop of loops) {
    const n = loop.length / 2;
    const at = (i) => [fit.x + loop[2 * (i % n)] * fit.width, fit.y + loop[2 * (i % n) + 1] * fit.height];
    const middle = (i) => {
      const [a, b] = [at(i), at(i + 1)];
      return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    };
    path.moveTo(...middle(n - 1));
    for (let i = 0; i < n; i++) path.quadraticCurveTo(...at(i), ...middle(i));
    path.closePath();
  }
  return path;
}

const GROW_MS = 220;

/**
 * Paints on two canvases as large as the stage: what stands still on the lower one, when it changes; what moves (the
 * running dashes, a closing ring) on the upper one, each frame. Paths are made when mask or layout change, not before.
 */
export class Overlay {
  constructor(lower, upper, { still = false } = {}) {
    this.lower = lower.getContext("2d");
    this.upper = upper.getContext("2d");
    this.still = still;
    this.cache = new OutlineCache();
    this.scene = { fit: null, mask: null, points: [], labels: [], box: null, rubber: null, cross: null, press: null };
    this.path = null;
    this.born = 0;
    this.unit = 1;
    this.drawn = 0;
    this.frame = null;
    this.dirty = true;
  }

  /** @param {object} patch of the scene; fit as contain() gives it, mask as the service answers it */
  update(patch) {
    const before = this.scene;
    this.scene = { ...before, ...patch };
    const { fit, mask, tidy = false } = this.scene;
    if (this.cache.tidy(tidy) || fit !== before.fit || mask !== before.mask) {
      this.path = mask && fit ? toPath(this.cache.of(mask), fit) : null;
      if (mask !== before.mask) this.born = performance.now();
    }
    if (fit !== before.fit && fit) this.#scale();
    this.dirty = true;
    this.#schedule();
  }

  resize(width, height, ratio) {
    for (const { canvas } of [this.lower, this.upper]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    this.ratio = ratio;
    this.size = [width, height];
    this.dirty = true;
    this.#schedule();
  }

  stop() {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    this.frame = null;
    this.stopped = true;
  }

  /** Pens are thicker on large screens, thinner on small photos. */
  #scale() {
    const root = Number.parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
    this.unit = root * Math.min(1, Math.max(0.7, this.scene.fit.width / 520));
  }

  #schedule() {
    if (this.frame !== null || this.stopped) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = null;
      const growing = this.path && !this.still && now - this.born < GROW_MS;
      const moving = (this.path && !this.still) || this.scene.press;
      if (this.dirty || growing) this.#paintLower(now);
      if (this.dirty || moving) this.#paintUpper(now);
      this.dirty = Boolean(growing); // once more when it has grown
      if (moving || this.dirty) this.#schedule();
    });
  }

  #clear(c) {
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, ...this.size);
  }

  #paintLower(now) {
    if (!this.size) return;
    const c = this.lower;
    this.#clear(c);
    const { fit, box, rubber, cross } = this.scene;
    if (!fit) return;
    if (this.path) this.#mask(c, now);
    if (box) this.#box(c, box, false);
    if (rubber) this.#box(c, rubber, true);
    this.#points(c);
    if (cross) this.#cross(c, cross);
  }

  #paintUpper(now) {
    if (!this.size) return;
    this.drawn += 1;
    const c = this.upper;
    this.#clear(c);
    if (this.path) {
      c.save();
      c.lineJoin = "round";
      c.strokeStyle = LIGHT;
      c.lineWidth = 2 * this.unit;
      c.setLineDash([9 * this.unit, 7 * this.unit]);
      c.lineDashOffset = this.still ? 0 : (-(now / 34) % 16) * this.unit;
      c.stroke(this.path);
      c.restore();
    }
    if (this.scene.press) this.#press(c, this.scene.press, now);
  }

  /** Everything but the product in the dark, its edge aglow. */
  #mask(c, now) {
    const { fit } = this.scene;
    c.save();
    c.globalAlpha = this.still ? 1 : Math.min(1, (now - this.born) / GROW_MS);
    const outside = new Path2D();
    outside.rect(fit.x, fit.y, fit.width, fit.height);
    outside.addPath(this.path);
    c.fillStyle = DIM;
    c.fill(outside, "evenodd");
    c.lineJoin = "round";
    c.strokeStyle = "rgba(31, 107, 255, 0.28)";
    c.lineWidth = 11 * this.unit;
    c.stroke(this.path);
    c.strokeStyle = KEEP;
    c.lineWidth = 4.5 * this.unit;
    c.stroke(this.path);
    c.restore();
  }

  #box(c, box, rubber) {
    const { fit } = this.scene;
    const [x0, y0, x1, y1] = box.map((v, i) => (i % 2 ? fit.y : fit.x) + v * fit.scale);
    c.save();
    if (rubber) {
      c.fillStyle = "rgba(31, 107, 255, 0.16)";
      c.fillRect(x0, y0, x1 - x0, y1 - y0);
    }
    for (const [style, width] of [
      [DARK, 4.5],
      [LIGHT, 2],
    ]) {
      c.strokeStyle = style;
      c.lineWidth = width;
      if (style === LIGHT) c.setLineDash([10, 6]);
      c.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    c.restore();
  }

  #points(c) {
    const { fit, points, labels } = this.scene;
    const u = this.unit;
    points.forEach(([px, py], i) => {
      const [x, y] = [fit.x + px * fit.scale, fit.y + py * fit.scale];
      const keep = labels[i] === 1;
      c.beginPath();
      c.arc(x, y, 13 * u, 0, 2 * Math.PI);
      c.fillStyle = "rgba(9, 11, 16, 0.35)";
      c.fill();
      c.beginPath();
      c.arc(x, y, 11 * u, 0, 2 * Math.PI);
      c.fillStyle = keep ? KEEP : REMOVE;
      c.fill();
      c.strokeStyle = LIGHT;
      c.lineWidth = 2.5 * u;
      c.stroke();
      c.beginPath();
      c.moveTo(x - 4.5 * u, y);
      c.lineTo(x + 4.5 * u, y);
      if (keep) {
        c.moveTo(x, y - 4.5 * u);
        c.lineTo(x, y + 4.5 * u);
      }
      c.stroke();
    });
  }

  /** A finger that rests: the ring closes when the long press counts. */
  #press(c, { x, y, since, ms }, now) {
    const share = Math.min(1, (now - since) / ms);
    if (share < 0.3) return;
    c.lineCap = "round";
    for (const [style, width] of [
      [DARK, 7],
      [REMOVE, 4.5],
    ]) {
      c.beginPath();
      c.arc(x, y, 34 * this.unit, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * share);
      c.strokeStyle = style;
      c.lineWidth = width;
      c.stroke();
    }
  }

  #cross(c, [px, py]) {
    const { fit } = this.scene;
    const [x, y] = [fit.x + px * fit.scale, fit.y + py * fit.scale];
    for (const [style, width] of [
      [DARK, 5],
      [LIGHT, 2],
    ]) {
      c.beginPath();
      for (const [dx, dy] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ]) {
        c.moveTo(x + dx * 7, y + dy * 7);
        c.lineTo(x + dx * 24, y + dy * 24);
      }
      c.strokeStyle = style;
      c.lineWidth = width;
      c.stroke();
    }
  }
}
