/** Brand, status, counter, settings. */

import { html } from "../../vendor/preact.js";
import { Icon } from "../lib/icons.js";
import { chipOf } from "../phase.js";

const CALM = ["ready", "busy"]; // not worth reading out each time

export function TopBar({ kiosk, state, t }) {
  const chip = chipOf(state);
  const captures = Boolean(state.status?.captures);
  return html`
    <header class="topbar">
      ${
        state.photo && !state.booth.on
          ? html`<button
              class="button button--glass"
              data-testid="retake"
              onClick=${() => kiosk.reset({ keepNumber: false })}
            >
              <${Icon} name="camera" /><span class="label">${t("action.retake")}</span>
            </button>`
          : html`<p class="brand"><img class="brand__mark" src="/static/icon.svg" alt="" /><span>boothsam</span></p>`
      }
      <div class="topbar__right">
        ${
          captures &&
          html`<p class="pill pill--counter" data-testid="counter" title=${t("counter.title")}>
            <${Icon} name="save" /><span>${t("counter", { n: state.today })}</span>
          </p>`
        }
        <p
          class="pill pill--${chip.state}"
          data-testid="status"
          data-state=${chip.state}
          role=${CALM.includes(chip.state) ? undefined : "status"}
        >
          <${Icon} name=${chip.icon} /><span>${t(chip.key, chip.values)}</span>
        </p>
        <button
          class="button button--glass button--round"
          data-testid="settings"
          aria-label=${t("settings.title")}
          onClick=${() => kiosk.set({ sheet: "settings" })}
        >
          <${Icon} name="gear" />
        </button>
      </div>
    </header>
  `;
}
