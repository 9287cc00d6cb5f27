/** What the booth's loop does right now, large enough to be read from where the product stands. */

import { html } from "../../vendor/preact.js";
import { Icon } from "../lib/icons.js";

export function BoothBar({ kiosk, state, t }) {
  const { booth } = state;
  if (booth.state === "countdown") {
    return html`<div
      class="booth-count"
      data-testid="booth"
      data-booth="countdown"
      key=${booth.left}
      aria-hidden="true"
    >
      ${booth.left}
    </div>`;
  }
  if (booth.state === "stopped") return html`<${Stopped} ...${{ kiosk, state, t }} />`;
  return html`
    <div class="booth booth--${booth.state}" data-testid="booth" data-booth=${booth.state}>
      ${
        booth.state === "done" &&
        state.preview &&
        html`<img class="booth__picture" src=${state.preview.url} alt=${t("preview.alt")} />`
      }
      <span class="booth__mark">
        ${
          booth.state === "waiting"
            ? html`<${Icon} name="barcode" />`
            : booth.state === "done"
              ? html`<${Icon} name="check" />`
              : html`<span class="spinner"></span>`
        }
      </span>
      <div>
        <p class="booth__title">${t(`booth.${booth.state}`)}</p>
        <p class="booth__text">
          ${text(state, t)}
          ${
            booth.state === "waiting" &&
            booth.lastText &&
            html`<span class="booth__more"> ${t("booth.waiting.again")}</span>`
          }
        </p>
      </div>
    </div>
  `;
}

function text(state, t) {
  const { booth, number } = state;
  if (booth.state === "waiting") {
    if (!booth.lastText) return t("booth.waiting.first");
    return t("booth.waiting.last", { name: booth.lastText, n: booth.lastAngle });
  }
  const name = booth.state === "done" ? booth.lastText : (number.text ?? "");
  return booth.angle > 1 ? t("booth.angle", { name, n: booth.angle }) : name || t("booth.unnamed");
}

// What no other mask can mend: there is nothing to save, or it would be saved under the wrong number.
const HOPELESS = ["wrong-barcode", "no-camera", "no-shot", "error", "empty", "camera_moved", "other_size", "no-mask"];

function Stopped({ kiosk, state, t }) {
  const { booth } = state;
  const { message, reason } = booth;
  const keep = state.photo && !HOPELESS.includes(reason);
  return html`
    <div class="booth-stop" role="alert" data-testid="booth" data-booth="stopped" data-reason=${reason}>
      <span class="problem__mark"><${Icon} name="alert" /></span>
      <div class="booth-stop__text">
        <h2>${message ? t(message.key, message.values) : t(`booth.stop.${reason}`)}</h2>
        <p>${t(reason === "wrong-barcode" ? "booth.stop.scan" : "booth.stop.again")}</p>
      </div>
      <div class="problem__actions">
        ${
          reason !== "wrong-barcode" &&
          html` <button
            class="button button--primary button--big"
            data-testid="booth-again"
            onClick=${() => kiosk.booth.again()}
          >
            <${Icon} name="camera" /><span>${t("booth.shoot-again")}</span>
          </button>`
        }
        ${
          keep &&
          html` <button
            class="button button--quiet button--big"
            data-testid="booth-keep"
            onClick=${() => kiosk.booth.keep()}
          >
            ${t("booth.keep")}
          </button>`
        }
        <button class="button button--quiet button--big" data-testid="booth-skip" onClick=${() => kiosk.booth.skip()}>
          ${t("booth.skip")}
        </button>
      </div>
    </div>
  `;
}
