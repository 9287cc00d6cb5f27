/** What is told: short notices, problems that need a decision, and the warning before the kiosk starts over. */

import { html } from "../../vendor/preact.js";
import { Icon } from "../lib/icons.js";
import { IDLE_MS, WARN_MS } from "../idle.js";
import { useDialog } from "./dialog.js";

const ICONS = { good: "check", bad: "alert", warn: "alert", info: "check" };

export function Toast({ kiosk, state }) {
  const { toast } = state;
  return html`
    <div class="toasts" role="status" aria-live="polite">
      ${
        toast &&
        html` <div class="toast toast--${toast.kind}" data-testid="toast" data-kind=${toast.kind} key=${toast.id}>
          <${Icon} name=${ICONS[toast.kind]} />
          <p>${toast.text}</p>
          <button
            class="toast__close"
            aria-label=${state.t("action.close")}
            onClick=${() => kiosk.set({ toast: null })}
          >
            <${Icon} name="close" />
          </button>
        </div>`
      }
    </div>
  `;
}

export function Problem({ kiosk, state, t }) {
  const { error } = state;
  if (!error) return null;
  return html`
    <div class="problem" role="alert" data-testid="problem">
      <div class="problem__card">
        <span class="problem__mark"><${Icon} name="alert" /></span>
        <h2>${t(error.key, error.values)}</h2>
        <p>${t(`${error.key}.do`, error.values)}</p>
        <div class="problem__actions">
          ${
            !error.final &&
            html` <button
              class="button button--primary button--big"
              data-testid="try-again"
              onClick=${() => kiosk.retry()}
            >
              <${Icon} name="again" /><span>${t("action.again")}</span>
            </button>`
          }
          <button
            class="button ${error.final ? "button--primary" : "button--quiet"} button--big"
            data-testid="start-over"
            onClick=${() => kiosk.reset()}
          >
            <span>${t("action.start-over")}</span>
          </button>
        </div>
      </div>
    </div>
  `;
}

export function IdleWarning({ kiosk, state, t }) {
  const dialog = useDialog(() => kiosk.idle.touch());
  const span = (IDLE_MS - WARN_MS) / 1000;
  return html`
    <dialog class="sheet sheet--small" ref=${dialog} data-testid="idle-warning" aria-label=${t("idle.title")}>
      <div class="idle">
        <svg class="idle__ring" viewBox="0 0 100 100" aria-hidden="true">
          <circle cx="50" cy="50" r="44" />
          <circle
            class="idle__left"
            cx="50"
            cy="50"
            r="44"
            pathLength="100"
            stroke-dasharray="${(state.idle / span) * 100} 100"
          />
          <text x="50" y="50" dy=".35em" text-anchor="middle">${state.idle}</text>
        </svg>
        <h2>${t("idle.title")}</h2>
        <p>${t("idle.text", { n: state.idle })}</p>
        <button class="button button--primary button--big" data-testid="idle-stay" onClick=${() => kiosk.idle.touch()}>
          ${t("idle.stay")}
        </button>
      </div>
    </dialog>
  `;
}
