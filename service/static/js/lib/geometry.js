/** Where a photo lies on the screen, and back. Pure: no DOM. */

/**
 * The largest picture of the photo's shape inside a box with insets, centred.
 *
 * @param {number} width of the photo
 * @param {number} height of the photo
 * @param {{width: number, height: number}} box
 * @param {{top?: number, right?: number, bottom?: number, left?: number}} [insets]
 * @returns {{x: number, y: number, width: number, height: number, scale: number}} scale: screen pixels per photo pixel
 */
export function contain(width, height, box, insets = {}) {
  const { top = 0, right = 0, bottom = 0, left = 0 } = insets;
  const roomW = Math.max(1, box.width - left - right);
  const roomH = Math.max(1, box.height - top - bottom);
  const scale = Math.min(roomW / width, roomH / height);
  const [w, h] = [width * scale, height * scale];
  return { x: left + (roomW - w) / 2, y: top + (roomH - h) / 2, width: w, height: h, scale };
}

/** Screen point to photo pixels, held inside the photo. */
export function toPhoto(fit, x, y) {
  const px = (x - fit.x) / fit.scale;
  const py = (y - fit.y) / fit.scale;
  const [w, h] = [fit.width / fit.scale, fit.height / fit.scale];
  return [clamp(px, 0, w - 1), clamp(py, 0, h - 1)];
}

/** Photo pixels to screen point. */
export function toScreen(fit, px, py) {
  return [fit.x + px * fit.scale, fit.y + py * fit.scale];
}

/** Whether a screen point lies on the photo, or at most `slack` pixels beside it. */
export function onPhoto(fit, x, y, slack = 0) {
  return x >= fit.x - slack && y >= fit.y - slack && x <= fit.x + fit.width + slack && y <= fit.y + fit.height + slack;
}

/** Box between two points, x0 < x1 and y0 < y1. */
export function boxBetween([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), Math.max(low, high));
}

/** One decimal is a tenth of a photo pixel: enough for any prompt, short in JSON. */
export function roundXy([x, y]) {
  return [Math.round(x * 10) / 10, Math.round(y * 10) / 10];
}
