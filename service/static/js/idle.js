/** Nobody there for a minute: the next visitor finds the kiosk as the first one did. */

export const IDLE_MS = 60_000;
export const WARN_MS = 50_000;

export class Idle {
  constructor(kiosk) {
    this.kiosk = kiosk;
    this.last = Date.now();
    for (const name of ["pointerdown", "pointermove", "wheel", "input"]) {
      window.addEventListener(name, () => this.#moved(), { passive: true, capture: true });
    }
    setInterval(() => this.#look(), 500);
  }

  /** The warning takes its answer itself: it must not vanish under the finger that reaches for its button. */
  #moved() {
    if (this.kiosk.state.idle === null) this.last = Date.now();
  }

  touch() {
    this.last = Date.now();
    if (this.kiosk.state.idle !== null) this.kiosk.set({ idle: null });
  }

  /** Nothing to put back, or something is under way that the visitor waits for. */
  #rests() {
    const { state } = this.kiosk;
    if (state.booth.on) return true;
    const untouched = !state.photo && !state.error && state.sheet === null && !state.typed;
    const working = state.analysing || state.asking > 0 || state.saving;
    return untouched || (working && state.reachable && state.waiting === null);
  }

  #look() {
    if (this.#rests()) {
      this.touch();
      return;
    }
    const idle = Date.now() - this.last;
    if (idle >= IDLE_MS) {
      this.touch();
      this.kiosk.set({ sheet: null });
      this.kiosk.reset();
    } else if (idle >= WARN_MS) {
      this.kiosk.set({ idle: Math.ceil((IDLE_MS - idle) / 1000) });
    }
  }
}
