/** Taps, long presses and drags out of pointer events. `Gesture` is pure; `bindGestures` puts it on an element. */

export const LONG_PRESS_MS = 500;
const SLOP = { mouse: 6, pen: 8, touch: 14 };

/**
 * One finger at a time; a second one cancels. A hand that shakes within the slop still taps.
 *
 * on.press(x, y), on.tap(x, y, background), on.drag(from, to), on.drop(from, to), on.cancel(): screen points as [x, y].
 */
export class Gesture {
  constructor(on, { setTimer = setTimeout, clearTimer = clearTimeout } = {}) {
    this.on = on;
    this.setTimer = (run, ms) => setTimer(run, ms);
    this.clearTimer = (timer) => clearTimer(timer);
    this.active = null;
  }

  /** time: when it happened, in milliseconds, which on a busy device is before the page hears of it. */
  down(id, x, y, { kind = "mouse", background = false, time = 0 } = {}) {
    if (this.active) {
      this.cancel();
      return;
    }
    const timer = this.setTimer(() => this.#long(), LONG_PRESS_MS);
    this.active = { id, from: [x, y], kind, background, time, dragging: false, done: false, timer };
    this.on.press?.(x, y);
  }

  move(id, x, y) {
    const one = this.active;
    if (!one || one.id !== id || one.done) return;
    if (!one.dragging && Math.hypot(x - one.from[0], y - one.from[1]) > (SLOP[one.kind] ?? SLOP.touch)) {
      one.dragging = true;
      this.clearTimer(one.timer);
    }
    if (one.dragging) this.on.drag?.(one.from, [x, y]);
  }

  up(id, x, y, time = 0) {
    const one = this.active;
    if (!one || one.id !== id) return;
    this.clearTimer(one.timer);
    this.active = null;
    if (one.done) return;
    if (!one.dragging) {
      this.on.tap?.(...one.from, one.background || time - one.time >= LONG_PRESS_MS);
      return;
    }
    const thin = (SLOP[one.kind] ?? SLOP.touch) * 1.5;
    const [w, h] = [Math.abs(x - one.from[0]), Math.abs(y - one.from[1])];
    if (w < thin || h < thin)
      this.on.cancel?.(); // a swipe is neither a tap nor a box
    else this.on.drop?.(one.from, [x, y]);
  }

  cancel() {
    if (!this.active) return;
    this.clearTimer(this.active.timer);
    this.active = null;
    this.on.cancel?.();
  }

  #long() {
    const one = this.active;
    if (!one) return;
    one.done = true;
    this.on.tap?.(...one.from, true);
  }
}

/** Feed a Gesture from an element's pointer events, in the element's own pixels. Returns a function that unbinds. */
export function bindGestures(element, on) {
  const gesture = new Gesture(on);
  const at = (event) => {
    const rect = element.getBoundingClientRect();
    return [event.clientX - rect.left, event.clientY - rect.top];
  };
  const listeners = {
    pointerdown(event) {
      if (event.button !== 0 && event.button !== 2) return;
      try {
        element.setPointerCapture(event.pointerId);
      } catch {
        // A pointer that is gone already, or one made by a script: moves still arrive while it is over the element.
      }
      gesture.down(event.pointerId, ...at(event), {
        kind: event.pointerType,
        background: event.button === 2 || event.shiftKey,
        time: event.timeStamp,
      });
    },
    pointermove: (event) => gesture.move(event.pointerId, ...at(event)),
    pointerup: (event) => gesture.up(event.pointerId, ...at(event), event.timeStamp),
    pointercancel: () => gesture.cancel(),
    contextmenu: (event) => event.preventDefault(),
  };
  for (const [name, listener] of Object.entries(listeners)) element.addEventListener(name, listener);
  return () => {
    gesture.cancel();
    for (const [name, listener] of Object.entries(listeners)) element.removeEventListener(name, listener);
  };
}
