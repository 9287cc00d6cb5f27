/** The whole screen: stage, dock, bars, sheets. */

import { html, useEffect, useState } from "../../vendor/preact.js";
import { phaseOf } from "../phase.js";
import { CameraView } from "./camera-view.js";
import { Dock } from "./dock.js";
import { BoothBar } from "./booth-bar.js";
import { IdleWarning, Problem, Toast } from "./notices.js";
import { Settings, TokenDialog } from "./settings.js";
import { Stage } from "./stage.js";
import { Tools } from "./tools.js";
import { TopBar } from "./topbar.js";

export function App({ kiosk }) {
  const [, draw] = useState(0);
  useEffect(() => {
    let asked = false;
    // Several changes in one go are one drawing.
    return kiosk.store.subscribe(() => {
      if (asked) return;
      asked = true;
      queueMicrotask(() => {
        asked = false;
        draw((n) => n + 1);
      });
    });
  }, [kiosk]);
  const { state } = kiosk;
  const { t } = state;
  if (!state.languages.length) return null;
  const phase = phaseOf(state);
  // The loop runs without hands; what stopped it can be mended by hand.
  const dock = state.photo && (!state.booth.on || state.booth.state === "stopped");
  const shape = [
    "app",
    dock ? "app--edit" : "app--camera",
    state.booth.on && "app--booth",
    state.photo && "app--photo",
    state.dropping && "app--dropping",
  ]
    .filter(Boolean)
    .join(" ");
  const props = { kiosk, state, t, phase };
  return html`
    <div class=${shape}>
      <main class="stage-area" aria-label=${t("app.stage")}>
        <${CameraView} ...${props} />
        ${state.photo && html`<${Stage} ...${props} />`}
        <${TopBar} ...${props} />
        ${dock && html`<${Tools} ...${props} />`} ${state.booth.on && html`<${BoothBar} ...${props} />`}
        <${Problem} ...${props} />
      </main>
      ${dock && html`<${Dock} ...${props} />`} ${state.dropping && html`<div class="drop-hint">${t("drop.hint")}</div>`}
      <${Toast} ...${props} />
      ${state.idle !== null && html`<${IdleWarning} ...${props} />`}
      ${state.sheet === "settings" && html`<${Settings} ...${props} />`}
      ${state.sheet === "token" && html`<${TokenDialog} ...${props} />`}
      <div class="visually-hidden" role="status" aria-live="polite">${state.say}</div>
    </div>
  `;
}
