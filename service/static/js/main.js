/** Starts the page, and keeps what lies outside the app's element up to date. */

import { html, render } from "../vendor/preact.js";
import { Booth } from "./booth.js";
import { Idle } from "./idle.js";
import { bindKeys } from "./keys.js";
import { Kiosk } from "./kiosk.js";
import { phaseOf, serverOf } from "./phase.js";
import { App } from "./ui/app.js";

const kiosk = new Kiosk();
kiosk.booth = new Booth(kiosk);
kiosk.idle = new Idle(kiosk);

function mark(state) {
  document.body.dataset.state = phaseOf(state);
  document.body.dataset.server = serverOf(state);
}

kiosk.store.subscribe(() => mark(kiosk.state));
bindKeys(kiosk);
render(html`<${App} kiosk=${kiosk} />`, document.getElementById("app"));
await kiosk.start();
kiosk.booth.resume();
// For tests, and for whoever looks with the browser's tools.
window.boothsam = {
  version: 1,
  session: kiosk,
  get counters() {
    return { contours: kiosk.overlay?.cache.traced ?? 0, frames: kiosk.overlay?.drawn ?? 0 };
  },
};
