/** The picture of the empty booth. */

import { frameOf } from "./camera.js";
import { sleep } from "./lib/retry.js";

const FRAMES = 5;
const BETWEEN_MS = 120;

export class Plate {
  constructor(kiosk) {
    this.kiosk = kiosk;
  }

  /** Several frames: their median has less noise, and nobody who walks through. */
  async take() {
    const { kiosk } = this;
    kiosk.set({ plateBusy: true });
    try {
      const form = new FormData();
      for (let i = 0; i < FRAMES; i++) {
        form.append("image_file", await frameOf(kiosk.video, 0.92), `empty-${i}.jpg`);
        await sleep(BETWEEN_MS);
      }
      await kiosk.api.json("PUT", "/plate", { form });
      kiosk.toast("plate.taken", "good");
    } catch (error) {
      kiosk.tell(error);
    } finally {
      kiosk.set({ plateBusy: false });
      kiosk.poll.now();
    }
  }

  async remove() {
    const { kiosk } = this;
    try {
      await kiosk.api.request("DELETE", "/plate");
    } catch (error) {
      kiosk.tell(error);
    }
    kiosk.poll.now();
  }
}
