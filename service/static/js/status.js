/** GET /kiosk/status every two seconds; slower while nobody answers. */

import { isAbort } from "./lib/api.js";
import { ApiError, backoff } from "./lib/retry.js";

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;

export class StatusPoll {
  constructor(kiosk) {
    this.kiosk = kiosk;
    this.misses = 0;
    this.timer = null;
  }

  start() {
    document.addEventListener("visibilitychange", () => !document.hidden && this.now());
    this.now();
  }

  /** Ask at once, as after something that changes the answer. */
  now() {
    clearTimeout(this.timer);
    void this.#ask();
  }

  async #ask() {
    const serial = (this.serial = (this.serial ?? 0) + 1);
    const { kiosk } = this;
    try {
      const status = await kiosk.api.json("GET", "/kiosk/status", { timeoutMs: TIMEOUT_MS });
      if (serial !== this.serial) return;
      this.misses = 0;
      kiosk.set({ status: same(kiosk.state.status, status), reachable: true });
    } catch (error) {
      if (isAbort(error) || serial !== this.serial) return;
      // A refusal is an answer: the service is there, but wants a token or has no such route.
      if (error instanceof ApiError) kiosk.set({ reachable: true });
      else this.misses += 1;
      // One miss may be a hiccup of the network.
      if (this.misses >= 2) kiosk.set({ reachable: false });
    }
    const wait = this.misses ? backoff(this.misses - 1, { base: 500, cap: 4000 }) : EVERY_MS;
    this.timer = setTimeout(() => void this.#ask(), wait);
  }
}

/** The old object while nothing changed: the screen is then not drawn anew. */
function same(before, after) {
  return JSON.stringify(before) === JSON.stringify(after) ? before : after;
}
